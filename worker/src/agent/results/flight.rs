//! Parts that are kept here for clients of Arrow Flight. A part is compared with the job's record before its first row goes out: unlike one who copies
//! the file, a reader of rows has no checksum to compare.
use super::{
    inventory::{Wrong, unlike},
    store::ResultStore,
};
use memmap2::Mmap;
use raftwerk_flight::{FlightError, Part, Results};
use raftwerk_formats::{Columnar, CsvOptions, Format, FormatError, RecordBatches, record_batches};
use raftwerk_proto::v1::{PartTicket, PartsMissing};
use std::{fs::File, io, path::Path, sync::Arc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Batches made ahead of the network.
const AHEAD: usize = 2;

pub(crate) struct Flights<T> {
    pub(crate) store: Arc<ResultStore>,
    /// Tells the session what turned out to be lost.
    pub(crate) tell: T,
}

/// How the rows of a part lie in its file, as the file's name says: `part-00003.csv.<lease>`.
fn format(staged_name: &str) -> Option<Format> {
    // Parts are written here, with a header and RFC 4180's quotes.
    match staged_name.split('.').nth(1)? {
        "csv" => Some(Format::Csv(CsvOptions::default())),
        "arrow" => Some(Format::Columnar(Columnar::Arrow)),
        "parquet" => Some(Format::Columnar(Columnar::Parquet)),
        _ => None,
    }
}

enum Trouble {
    Lost(Wrong),
    Unreadable(FormatError),
    Ours(io::Error),
}

/// The part if it is as the record says.
fn open(path: &Path, format: &Format, ticket: &PartTicket) -> Result<RecordBatches, Trouble> {
    let trouble = |error: io::Error| Wrong::of(&error).map_or(Trouble::Ours(error), Trouble::Lost);
    let file = File::open(path).map_err(trouble)?;
    let bytes = file.metadata().map_err(trouble)?.len();
    let lost = |crc| Trouble::Lost(unlike((bytes, crc), (ticket.bytes, ticket.crc32c)));
    if bytes != ticket.bytes {
        return Err(lost(0));
    }
    let bytes = match bytes {
        0 => bytes::Bytes::new(), // which cannot be mapped
        // SAFETY: parts are written under another name, flushed, renamed and never written again; whoever changes them by hand on a worker's
        // disk gets what he would get from a changed file, a wrong row.
        _ => bytes::Bytes::from_owner(unsafe { Mmap::map(&file) }.map_err(trouble)?),
    };
    let crc = crc32c::crc32c(&bytes);
    if crc != ticket.crc32c {
        return Err(lost(crc));
    }
    record_batches(format, bytes, ticket.binary).map_err(Trouble::Unreadable)
}

#[tonic::async_trait]
impl<T: Fn(PartsMissing) + Send + Sync + 'static> Results for Flights<T> {
    async fn part(&self, ticket: PartTicket) -> Result<Part, Status> {
        let (job, name) = (ticket.job, ticket.staged_name.clone());
        let what = format!("part {name} of job {job}");
        let path = self.store.path(job, &name).ok_or_else(|| Status::not_found(format!("{what} is not kept on this worker")))?;
        let Some(format) = format(&name) else {
            let how = format!("{what} has no rows that Arrow knows; fetch it with `raftwerk job result {job} --output DIR`");
            return Err(Status::failed_precondition(how));
        };
        let opened = raftwerk_transport::tasks::blocking(move || open(&path, &format, &ticket)).await;
        let opened = opened.map_err(|error| Status::internal(error.to_string()))?;
        let RecordBatches { schema, batches } = opened.map_err(|trouble| match trouble {
            Trouble::Lost(wrong) => {
                let text = format!("{what} is not here as it was made ({}); another endpoint may have it", wrong.reason());
                self.store.inventory().wrong(job, &name, wrong).into_iter().for_each(&self.tell);
                Status::data_loss(text)
            }
            Trouble::Unreadable(error @ FormatError::Feature { .. }) => Status::failed_precondition(format!("{what}: {error}")),
            Trouble::Unreadable(error) => Status::internal(format!("{what}: {error}")),
            Trouble::Ours(error) => Status::unavailable(format!("cannot read {what}: {error}")),
        })?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        raftwerk_transport::tasks::blocking(move || {
            for batch in batches {
                let batch = batch.map_err(|error| {
                    let hint = match error {
                        FormatError::NoText { .. } => ": the path [\"JOB\", \"binary\"]",
                        _ => "",
                    };
                    FlightError::Tonic(Box::new(Status::failed_precondition(format!("{what}: {error}{hint}"))))
                });
                let last = batch.is_err();
                if sender.blocking_send(batch).is_err() || last {
                    return; // the other side has gone
                }
            }
        });
        Ok(Part { schema, batches: Box::pin(ReceiverStream::new(receiver)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_part_says_how_its_rows_lie() {
        let is = |name| format(name).is_some();
        assert!(is("part-00003.csv.7-1-9") && is("part-00000.arrow.7-1-9") && is("part-00000.parquet.7-1-9"));
        assert!(!is("part-00000.npy.7-1-9") && !is("part-00000.png.7-1-9") && !is("csv") && !is(""));
    }
}
