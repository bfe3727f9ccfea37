//! A real S3 server over a directory of the test, and a proxy before it that answers, breaks and delays as stores do on bad days.

mod proxy;
mod server;

pub use proxy::{Faults, Proxy, Told};
pub use server::{ACCESS_KEY, SECRET_KEY, Server};
