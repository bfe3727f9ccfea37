//! Data between stages: [`store`] keeps what this worker's map tasks wrote, [`service`] hands it to other workers, [`fetch`] gets a
//! partition together for a reduce task; [`copy`] makes a second copy on another worker, and takes those of others;
//! [`packed`] makes messages shorter for slow networks; [`measure`] is for whoever asks how fast all that is.
pub(crate) mod copy;
pub(crate) mod fetch;
pub mod measure;
mod packed;
pub(crate) mod service;
pub(crate) mod store;
