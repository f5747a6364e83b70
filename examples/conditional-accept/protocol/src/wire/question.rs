//! Questions and answers as bytes.

use core::net::SocketAddr;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{AddressBytes, Malformed, decode_answer, encode_answer, exactly};
use crate::policy::Answer;
use crate::record::RequestId;

/// A connection request that has to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Question {
    /// Names the question in its answer. No two questions of one load of the driver have the same number.
    pub number: u64,
    /// The request, as records name it.
    pub id: RequestId,
    /// Address of the client.
    pub remote: SocketAddr,
    /// Time left for the answer, in milliseconds.
    pub time_left: u32,
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionAnswer {
    /// The question's number.
    pub number: u64,
    /// The answer.
    pub answer: Answer,
}

/// A [`Question`]: 56 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct QuestionBytes {
    /// The number of the question.
    pub number: U64,
    /// `WSK_INSPECT_ID.Key`.
    pub key: U64,
    /// `WSK_INSPECT_ID.SerialNumber`.
    pub serial: U32,
    /// Milliseconds left.
    pub time_left: U32,
    /// Address of the client.
    pub remote: AddressBytes,
    /// Zero.
    pub reserved: U32,
}

impl From<&Question> for QuestionBytes {
    fn from(question: &Question) -> Self {
        Self {
            number: U64::new(question.number),
            key: U64::new(question.id.key),
            serial: U32::new(question.id.serial),
            time_left: U32::new(question.time_left),
            remote: question.remote.into(),
            reserved: U32::ZERO,
        }
    }
}

impl Question {
    /// Reads a question that is all there is.
    ///
    /// # Errors
    ///
    /// When the bytes are no question.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = exactly::<QuestionBytes>(bytes)?;
        Ok(Self {
            number: bytes.number.get(),
            id: RequestId { key: bytes.key.get(), serial: bytes.serial.get() },
            remote: (&bytes.remote).try_into()?,
            time_left: bytes.time_left.get(),
        })
    }
}

/// A [`QuestionAnswer`]: 16 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnswerBytes {
    /// The number of the question.
    pub number: U64,
    /// 1 accept, 2 reject.
    pub answer: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

impl From<QuestionAnswer> for AnswerBytes {
    fn from(QuestionAnswer { number, answer }: QuestionAnswer) -> Self {
        Self { number: U64::new(number), answer: encode_answer(answer), reserved: [0; 7] }
    }
}

impl QuestionAnswer {
    /// Reads an answer that is all there is.
    ///
    /// # Errors
    ///
    /// When the bytes are no answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = exactly::<AnswerBytes>(bytes)?;
        Ok(Self { number: bytes.number.get(), answer: decode_answer(bytes.answer)? })
    }
}
