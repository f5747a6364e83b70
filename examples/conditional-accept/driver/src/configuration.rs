//! Configuration of the driver in the registry.

use gate_service::Parameters;
use gate_service::policy::Policy;
use gate_service::record::{Problem, Record, Setting};
use wdk_sys::UNICODE_STRING;
use wsk::Passive;
use wsk::memory::{OutOfMemory, PoolBox, PoolVec};

use crate::registry::{Buffer, Key, Value};

/// The largest value: a list that names as many networks as a policy holds, each as 64 characters of UTF-16.
const LARGEST: usize = Policy::CAPACITY * 64 * size_of::<u16>();

/// Limit on reported problems of the configuration; further ones are not reported.
const PROBLEMS: usize = 64;

/// The parameters, and what was wrong with them.
pub(crate) struct Configuration {
    /// In the pool: they are too large for a kernel stack to carry around.
    pub(crate) parameters: PoolBox<Parameters>,
    /// Records of what could not be used.
    pub(crate) problems: PoolVec<Record>,
}

impl Configuration {
    /// Reads the values of the `Parameters` key. What is missing there has its default; what cannot be used
    /// is reported, and opens nothing, see [`gate_service::parameters`].
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    ///
    /// # Safety
    /// `path` is the registry path that `DriverEntry` was given.
    pub(crate) unsafe fn read(
        path: *const UNICODE_STRING,
        passive: Passive<'_>,
    ) -> Result<Self, OutOfMemory> {
        let mut parameters = PoolBox::try_new(Parameters::default())?;
        let mut problems = PoolVec::try_with_capacity(PROBLEMS)?;
        let mut buffer = Buffer::try_new(LARGEST)?;
        let mut report = |problem| {
            // When there is no room, there are enough of them to see what is wrong.
            let _ = problems.push(problem);
        };
        // SAFETY: the caller says what the path is.
        let key = unsafe { Key::parameters(path, passive) };
        for setting in Setting::ALL {
            let value = match &key {
                Ok(Some(key)) => key.value(setting.name(), &mut buffer, passive),
                Ok(None) => Value::Missing,
                Err(_) => Value::Unreadable,
            };
            let problem = match value {
                Value::Missing => continue,
                Value::Found { kind, data } => {
                    parameters.set(setting, kind, data, &mut report);
                    continue;
                }
                Value::TooLong => Problem::TooLong,
                Value::Unreadable => Problem::Unreadable,
            };
            parameters.doubt(setting);
            report(Record::BadSetting { setting, problem, entry: 0 });
        }
        Ok(Self { parameters, problems })
    }
}
