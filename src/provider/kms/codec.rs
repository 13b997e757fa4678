//! A protobuf codec that marks what does not decode, so that it is told from an answer of the plugin.

use std::marker::PhantomData;
use std::sync::Arc;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf};
use tonic_prost::ProstEncoder;

/// Encodes `T`, decodes `U`.
pub(super) struct Codec<T, U>(PhantomData<(T, U)>);

/// The decoding half.
pub(super) struct Decoder<U>(PhantomData<U>);

/// The source of a status that was made here because the answer did not decode.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not valid protobuf")]
pub(super) struct NotProtobuf;

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(PhantomData)
    }
}

impl<U: Message + Default> tonic::codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The decoder's own text is left out: it could hold a part of the answer.
        U::decode(bytes).map(Some).map_err(|_| {
            let mut status = Status::internal(NotProtobuf.to_string());
            status.set_source(Arc::new(NotProtobuf));
            status
        })
    }
}
