//! The leader loop by itself: inputs in, effects out.

mod formats;
mod hand_over;
mod host;
mod kept_data;
mod matching;
mod old_words;
mod patience;
mod publishing;
mod rounds;
mod sessions;
mod submissions;
mod uploads;
