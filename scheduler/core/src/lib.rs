//! The replicated state of a cluster and every decision about it.
//!
//! Pure: no clock, no random source, no I/O, no threads, no floats in state. The same state and the same entry give the same result
//! on every replica. Time comes in with each entry; ids derive from counters in the state.
//!
//! - [`State`] is what every replica holds; [`State::apply`] is the only way to change it.
//! - [`plan`] reads a view of it and proposes placements, which take effect when they come back as a command.
//! - [`invariants`] are the promises, one function each; simulation runs them after every step.

#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::float_arithmetic)]

mod alike;
pub mod apply;
pub mod copies;
pub mod cost;
mod counted;
pub mod counters;
pub mod device_match;
pub mod failures;
pub mod gang;
pub mod graph;
pub mod homes;
pub mod ids;
pub mod interval_map;
pub mod invariants;
pub mod job;
pub mod kept;
pub mod lease;
pub mod matching;
pub mod memory;
pub mod namespace;
pub mod plan;
pub mod ring;
pub mod rounds;
pub mod snapshot;
pub mod spans;
pub mod spec;
pub mod spec_format;
pub mod split;
pub mod stage;
pub mod state;
pub mod trouble;
pub mod view;
mod waits;
mod weight;
pub mod worker;

pub use apply::{Applied, ApplyError, Event, Outcome};
pub use ids::{JobId, LeaseId, Session, TaskRange, Timestamp, WorkerId};
pub use job::{Job, Phase};
pub use lease::Lease;
pub use state::State;
