//! Data between stages: [`store`] keeps what this worker's map tasks wrote, [`service`] hands it to other workers, [`fetch`] gets a
//! partition together for a reduce task; [`copy`] makes a second copy on another worker, and takes those of others.
pub(crate) mod copy;
pub(crate) mod fetch;
pub(crate) mod service;
pub(crate) mod store;
