//! The leader loop by itself: inputs in, effects out.

mod formats;
mod host;
mod kept_data;
mod patience;
mod matching;
mod publishing;
mod sessions;
mod submissions;
