//! The agent's end of an executor's socket.
use crate::frame::{FrameError, Frames};
use raftwerk_proto::v1::FromExecutor;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::mpsc,
};

/// Bytes asked for at once.
const READ_BYTES: usize = 256 << 10;
/// The system takes at most 253 with one send.
const DESCRIPTORS_MAX: usize = 253;

/// Whole frames; the descriptors belong to the last one.
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Writes in order until the sender is dropped or the executor is gone; who reads learns of the latter.
pub(crate) fn start_writer(mut writer: OwnedWriteHalf) -> mpsc::UnboundedSender<Outgoing> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    raftwerk_transport::tasks::spawn(async move {
        while let Some(outgoing) = receiver.recv().await {
            if let Err(error) = write(&mut writer, &outgoing).await {
                tracing::debug!(%error, "an executor's socket broke");
                // Drain, so that descriptors do not pile up behind a dead socket.
                while receiver.recv().await.is_some() {}
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    sender
}

async fn write(writer: &mut OwnedWriteHalf, outgoing: &Outgoing) -> io::Result<()> {
    let mut bytes = &outgoing.bytes[..];
    for descriptors in outgoing.descriptors.chunks(DESCRIPTORS_MAX) {
        // A send of several bytes may be cut anywhere; one byte carries the descriptors for sure. The rest of the last one follows below.
        let more_to_come = bytes.len() > 1 && descriptors.len() == DESCRIPTORS_MAX;
        let piece = if more_to_come { &bytes[..1] } else { bytes };
        let sent = send_with(writer, piece, descriptors).await?;
        bytes = &bytes[sent..];
    }
    writer.write_all(bytes).await
}

async fn send_with(writer: &OwnedWriteHalf, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let stream = writer.as_ref();
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let send = || {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&borrowed));
        Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
    };
    loop {
        match stream.async_io(Interest::WRITABLE, send).await {
            // Too many descriptors are on their way to slow executors: the system counts them per user. They will be read.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error()) => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            other => return other,
        }
    }
}

/// Reads until the socket closes; returns what broke it, if anything did.
pub(crate) async fn read_all(
    mut reader: OwnedReadHalf,
    mut frames: Frames,
    mut forward: impl FnMut(Vec<FromExecutor>),
) -> Option<FrameError> {
    loop {
        let mut batch = Vec::new();
        loop {
            match frames.decode() {
                Ok(Some(message)) => batch.push(message),
                Ok(None) => break,
                Err(error) => return Some(error),
            }
        }
        if !batch.is_empty() {
            forward(batch);
        }
        match reader.read(frames.space(READ_BYTES)).await {
            Ok(read @ 1..) => frames.filled(READ_BYTES, read),
            Ok(0) | Err(_) => return None,
        }
    }
}
