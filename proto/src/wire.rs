//! Messages to bytes and back, compiled here and nowhere else.
//!
//! What prost generates is generic over the buffer, and generic code is compiled in every crate that uses it: the scheduler, the worker and the command
//! line each had a copy of reading and writing all messages. [`Wire`] has the same for one kind of buffer each, without a parameter.

use prost::bytes::Bytes;
use prost::{DecodeError, Message};

/// A message of this package; implemented for all of them by the build script.
pub trait Wire: Message + Default + Sized + 'static {
    /// What `Message::decode` does. Fields of bytes share the memory of `from`.
    fn from_wire(from: Bytes) -> Result<Self, DecodeError>;

    /// The same of bytes that do not live on: fields of bytes are copied.
    fn from_wire_slice(from: &[u8]) -> Result<Self, DecodeError>;

    /// What `Message::encoded_len` says.
    fn wire_bytes(&self) -> usize;

    /// Appends what `Message::encode_to_vec` gives.
    fn append_to(&self, bytes: &mut Vec<u8>);

    /// What `Message::encode_to_vec` does.
    fn to_wire(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.wire_bytes());
        self.append_to(&mut bytes);
        bytes
    }

    /// What `Message::encode` does, into what gRPC is about to send.
    #[cfg(feature = "services")]
    fn send(&self, into: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), prost::EncodeError>;
}

/// Implements [`Wire`] for the messages named.
macro_rules! wire {
    ($($message:ident)*) => {$(
        impl Wire for $message {
            fn from_wire(from: Bytes) -> Result<Self, DecodeError> {
                Message::decode(from)
            }

            fn from_wire_slice(from: &[u8]) -> Result<Self, DecodeError> {
                Message::decode(from)
            }

            fn wire_bytes(&self) -> usize {
                Message::encoded_len(self)
            }

            fn append_to(&self, bytes: &mut Vec<u8>) {
                Message::encode_raw(self, bytes);
            }

            #[cfg(feature = "services")]
            fn send(&self, into: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), prost::EncodeError> {
                // At once: a message of shuffle data would grow the buffer, and be copied, block by block.
                into.reserve(Message::encoded_len(self));
                Message::encode(self, into)
            }
        }
    )*};
}

mod messages {
    use super::{Bytes, DecodeError, Message, Wire};
    use crate::v1::*;
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

#[cfg(feature = "services")]
pub use codec::WireCodec;

#[cfg(feature = "services")]
mod codec {
    use super::Wire;
    use prost::bytes::Buf;
    use std::marker::PhantomData;
    use tonic::Status;
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

    /// What generated clients and servers use in the place of `tonic_prost::ProstCodec`: the same bytes, by way of [`Wire`].
    pub struct WireCodec<T, U>(PhantomData<(T, U)>);

    impl<T, U> Default for WireCodec<T, U> {
        fn default() -> Self {
            WireCodec(PhantomData)
        }
    }

    impl<T: Wire + Send, U: Wire + Send> Codec for WireCodec<T, U> {
        type Encode = T;
        type Decode = U;
        type Encoder = Sender<T>;
        type Decoder = Receiver<U>;

        fn encoder(&mut self) -> Sender<T> {
            Sender(PhantomData)
        }

        fn decoder(&mut self) -> Receiver<U> {
            Receiver(PhantomData)
        }
    }

    pub struct Sender<T>(PhantomData<T>);

    impl<T: Wire> Encoder for Sender<T> {
        type Item = T;
        type Error = Status;

        fn encode(&mut self, message: T, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
            message.send(into).map_err(|error| Status::internal(error.to_string()))
        }
    }

    pub struct Receiver<U>(PhantomData<U>);

    impl<U: Wire> Decoder for Receiver<U> {
        type Item = U;
        type Error = Status;

        /// The protobuf mapping of gRPC asks for INTERNAL where a message does not parse.
        fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
            let length = from.remaining();
            U::from_wire(from.copy_to_bytes(length)).map(Some).map_err(|error| Status::internal(error.to_string()))
        }
    }
}
