//! Objects in stores such as S3, as input and as output. Workers speak to stores, and the command line that brings a result home: the scheduler sees
//! URLs, and no credentials.
//!
//! ```text
//! address    s3://bucket/key                      problem   what can go wrong, whom it concerns, what to set
//! client     one client per bucket                listing   which objects a pattern means, and what they are
//! fetch      the bytes of a split, in a file      splits    from granted splits to what an executor gets
//!            without a name                       columnar  of files of columns their ends and groups
//! upload     parts of an output                   output    the manifest that makes them one
//! stored     a published output, brought elsewhere
//! ```
//! All but addresses and problems does its work with the feature `object-stores` alone; a build without it says so where an object is named.
#[cfg_attr(not(feature = "object-stores"), allow(dead_code, reason = "compiled, and tested, in every build"))]
mod address;
#[cfg_attr(not(feature = "object-stores"), allow(dead_code, reason = "compiled, and tested, in every build"))]
mod problem;

#[cfg(feature = "object-stores")]
mod client;
#[cfg(feature = "object-stores")]
mod columnar;
#[cfg(feature = "object-stores")]
mod fetch;
#[cfg(feature = "object-stores")]
mod listing;
#[cfg(feature = "object-stores")]
mod output;
#[cfg(feature = "object-stores")]
mod splits;
#[cfg(feature = "object-stores")]
mod stored;
#[cfg(feature = "object-stores")]
mod upload;

#[cfg(not(feature = "object-stores"))]
mod absent;

#[cfg(not(feature = "object-stores"))]
pub(crate) use absent::{Objects, describe, ends, head, list, output_problem, read_all};
#[cfg(feature = "object-stores")]
pub(crate) use {
    columnar::ends,
    fetch::Objects,
    listing::{describe, head, list, read_all},
    output::output_problem,
};

#[cfg(not(feature = "object-stores"))]
pub use absent::StoredResult;
#[cfg(feature = "object-stores")]
pub use stored::StoredResult;

pub(crate) use problem::StoreError;
pub use problem::StoredResultError;
pub(crate) use raftwerk_proto::is_store_url as is_url;

/// To unpack so many bytes of an object, as many of it are read and these: what does not compress is hardly longer for it, but comes in blocks.
pub(crate) const PACKED_SLACK: usize = 256 << 10;

/// An object as a listing has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) url: String,
    pub(crate) bytes: u64,
    /// Of the store's own tag of its content.
    pub(crate) version: u64,
}
