//! Typed requests of the driver. Invalid bytes are an [`Error`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_protocol::wire::{
    self, AnswerBytes, IOCTL_ANSWER, IOCTL_GET_POLICY, IOCTL_NEXT_QUESTION, IOCTL_NEXT_RECORDS,
    IOCTL_SET_POLICY, IOCTL_STATUS, Malformed, PROTOCOL_VERSION, Question, QuestionAnswer, TimedRecord,
};
use gate_protocol::{Policy, Status};
use windows_sys::Win32::Foundation::ERROR_NOT_FOUND;
use zerocopy::IntoBytes as _;

use crate::device::{Device, RequestError, WaitLimit};
use crate::error::Error;

/// Limit for requests that complete at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Room for what a driver of any version may have to say to a request that is completed at once.
const ROOM: usize = 8 << 10;

/// Room for records: about 900.
const RECORDS: usize = 64 << 10;

/// The driver, as its control device shows it.
pub struct Driver {
    device: Arc<dyn Device>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Outcome of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// The answer is in force.
    InTime,
    /// The question does not wait for an answer any more.
    TooLate,
}

/// Records that came at once.
#[derive(Debug)]
pub struct Records<'b> {
    /// Number of records that this program has missed, because it did not fetch them in time.
    pub lost: u64,
    bytes: &'b [u8],
}

impl Records<'_> {
    /// The records. One that a newer driver has and this version does not know is an error by itself.
    pub fn iter(&self) -> impl Iterator<Item = Result<TimedRecord, Malformed>> + '_ {
        // That the bytes are what they should be was seen when they came.
        wire::decode_records(self.bytes).into_iter().flat_map(|(_, records)| records)
    }
}

impl Driver {
    /// The driver behind a device.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self { device }
    }

    /// Ends what waits for records and questions, for good.
    pub fn stop(&self) {
        self.device.stop();
    }

    /// Returns the status of the service.
    pub fn status(&self) -> Result<Status, Error> {
        let bytes = self.request_now(IOCTL_STATUS, &[])?;
        // The version comes first in every version.
        if let Some(version) = bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
            && version != PROTOCOL_VERSION
        {
            return Err(Error::Version(version));
        }
        Status::decode(&bytes).map_err(malformed("status"))
    }

    /// The policy that is in force.
    pub fn policy(&self) -> Result<Policy, Error> {
        let bytes = self.request_now(IOCTL_GET_POLICY, &[])?;
        wire::decode_policy(&bytes).map_err(malformed("policy"))
    }

    /// Replaces the policy.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), Error> {
        let mut bytes = vec![0; wire::policy_size(policy)];
        // There is room for exactly that.
        let _ = wire::encode_policy(policy, &mut bytes);
        self.request_now(IOCTL_SET_POLICY, &bytes).map(drop)
    }

    /// Waits for records; `None` if `end` or [`Driver::stop`] came first.
    pub fn records<'b>(
        &self,
        buffer: &'b mut Vec<u8>,
        end: Option<Instant>,
    ) -> Result<Option<Records<'b>>, Error> {
        buffer.resize(RECORDS, 0);
        let Some(written) = self.wait(IOCTL_NEXT_RECORDS, buffer, end)? else { return Ok(None) };
        let bytes: &'b [u8] = &buffer[..written];
        let (lost, _) = wire::decode_records(bytes).map_err(malformed("records"))?;
        Ok(Some(Records { lost, bytes }))
    }

    /// Waits for a question; `None` if `end` or [`Driver::stop`] came first.
    pub fn question(&self, end: Option<Instant>) -> Result<Option<Question>, Error> {
        let mut buffer = [0; 256];
        let Some(written) = self.wait(IOCTL_NEXT_QUESTION, &mut buffer, end)? else { return Ok(None) };
        Question::decode(&buffer[..written]).map(Some).map_err(malformed("question"))
    }

    /// Answers a question.
    pub fn answer(&self, answer: QuestionAnswer) -> Result<AnswerOutcome, Error> {
        match self.device.request(
            IOCTL_ANSWER,
            AnswerBytes::from(answer).as_bytes(),
            &mut [],
            WaitLimit::Short(AT_ONCE),
        ) {
            Ok(_) => Ok(AnswerOutcome::InTime),
            Err(RequestError::Code(ERROR_NOT_FOUND)) => Ok(AnswerOutcome::TooLate),
            Err(error) => Err(Error::request(error, AT_ONCE)),
        }
    }

    fn request_now(&self, code: u32, input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut output = vec![0; ROOM];
        let written = self
            .device
            .request(code, input, &mut output, WaitLimit::Short(AT_ONCE))
            .map_err(|error| Error::request(error, AT_ONCE))?;
        output.truncate(written);
        Ok(output)
    }

    fn wait(&self, code: u32, output: &mut [u8], end: Option<Instant>) -> Result<Option<usize>, Error> {
        match self.device.request(code, &[], output, WaitLimit::Until(end)) {
            Ok(written) => Ok(Some(written.min(output.len()))),
            Err(RequestError::Ended) => Ok(None),
            Err(error) => Err(Error::request(error, AT_ONCE)),
        }
    }
}

fn malformed(what: &'static str) -> impl FnOnce(Malformed) -> Error {
    move |malformed| Error::Malformed { what, malformed }
}
