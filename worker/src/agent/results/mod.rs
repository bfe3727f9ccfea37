//! Results that stay on workers: [`store`] keeps parts in the data directory, [`keep`] fetches copies from other workers, [`service`] hands
//! parts out, [`inventory`] knows what should be here and looks whether it is, and [`brought`] has what was kept for another cluster.
pub(crate) mod brought;
#[cfg(feature = "flight")]
pub(crate) mod flight;
pub(crate) mod inventory;
pub(crate) mod keep;
pub(crate) mod service;
pub(crate) mod store;
