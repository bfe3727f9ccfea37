//! A discrete-event simulation: the core that ships, against virtual devices, in virtual time.
//!
//! Every grant, report, registration and loss is an entry that goes through [`State::apply`](raftwerk_core::State::apply), and every placement
//! comes from [`plan`](raftwerk_core::plan::plan), by the policy that is asked for. What is replaced is around them: the log is a delay
//! between the proposal of an entry and its being applied (one entry in flight, with everything that arrived meanwhile in the next one), the
//! network is a delay per message, and a device computes for as long as its speed, the noise and its launch and transfer costs say.
//!
//! ```text
//! read/      cluster and job files, tables of measured seconds; every error with file, key and fix
//! scenario   what was read: groups of devices, jobs, seconds of each kernel on each group
//! dice       noise: a function of seed and task, so that every policy meets the same
//! rate       how fast a device is over time: slow-downs and failures
//! device     a virtual device: threads that take tasks in order, a link that brings input
//! world/     the leader's part: events, entries, plans; what devices tell
//! bound/     what no schedule can beat: area (linear program) and critical path
//! outcome    measures of a run          timeline/  who did what when, as SVG or PNG
//! ```

pub mod bound;
mod device;
mod dice;
pub mod outcome;
mod rate;
pub mod read;
pub mod scenario;
pub mod timeline;
mod world;

pub use outcome::Outcome;
pub use scenario::Scenario;
pub use world::{Run, RunError, run};
