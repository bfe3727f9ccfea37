mod chain;
mod convert;
mod simulated;
mod three_replicas;

pub(super) use chain::Chain;
