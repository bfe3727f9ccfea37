//! One file per command.

pub mod calibrate;
pub mod cluster;
pub mod context;
pub mod costs;
pub mod dev;
pub mod doctor;
pub mod download;
pub mod executor;
pub mod job;
pub mod join;
pub mod kernels;
pub mod namespace;
pub mod published;
pub mod ready;
pub mod run;
pub mod scheduler;
pub mod signals;
pub mod simulate;
pub mod stored;
pub mod submit;
pub mod wait;
pub mod worker;
