use crate::{Named, named};
pub const TESTS: &[Named] = named![];
pub const MEASURES: &[Named] = named![];
