//! The receiving end of the socket: frames, and the descriptors that travel beside them.
use crate::frame::{FrameError, Frames};
use raftwerk_proto::v1::ToExecutor;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
};

/// Bytes asked for at once: some hundred one-task leases.
const READ_BYTES: usize = 256 << 10;
/// The kernel sends at most 253 descriptors with one message, and never merges two such messages into one receive.
const DESCRIPTORS_MAX: usize = 253;

pub(super) struct Receiver {
    socket: UnixStream,
    frames: Frames,
    /// Received and not yet claimed by a message. A descriptor arrives no later than the last byte of its message.
    descriptors: VecDeque<OwnedFd>,
    control: Vec<MaybeUninit<u8>>,
}

impl Receiver {
    pub(super) fn new(socket: UnixStream) -> Self {
        let control = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        Self { socket, frames: Frames::default(), descriptors: VecDeque::new(), control }
    }

    pub(super) fn next_decoded(&mut self) -> Result<Option<ToExecutor>, FrameError> {
        self.frames.decode()
    }

    /// Waits for more bytes; false when the agent has closed its end.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let space = self.frames.space(READ_BYTES);
        let mut control = RecvAncillaryBuffer::new(&mut self.control);
        let received = loop {
            match recvmsg(&self.socket, &mut [IoSliceMut::new(space)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => break 0,
                other => break other?.bytes,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.frames.filled(READ_BYTES, received);
        Ok(received > 0)
    }

    pub(super) fn take_descriptors(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (self.descriptors.len() >= count).then(|| self.descriptors.drain(..count).collect())
    }
}
