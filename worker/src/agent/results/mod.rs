//! Results that stay on workers: [`store`] keeps parts in the data directory, [`keep`] fetches copies from other workers, [`service`] hands
//! parts out, and [`brought`] has what was kept for another cluster.
pub(crate) mod brought;
pub(crate) mod keep;
pub(crate) mod service;
pub(crate) mod store;
