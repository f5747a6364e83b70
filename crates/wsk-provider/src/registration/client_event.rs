//! `WskClientEvent`: no event is defined, so it is never called (EVT-53), except to test how a client handles
//! an unknown event (EVT-54).

use wsk_sys::STATUS_NOT_IMPLEMENTED;

use crate::provider::Provider;

const CALL: &str = "WskClientEvent";

/// The information of an unknown event.
const INFORMATION: [u8; 16] = *b"no such event...";

impl Provider {
    /// Calls `WskClientEvent` of every client that has one with an undefined event, and checks the status.
    /// Returns the number of clients called.
    pub fn try_client_event(&self, event: u32) -> usize {
        let provider = &self.0;
        let mut called = 0;
        for registration in provider.registrar.registrations() {
            let Some(callback) = registration.event else { continue };
            called += 1;
            let mut information = INFORMATION;
            let status = provider.in_callback(CALL, |_| {
                // SAFETY: the client's callback gets the client's context and bytes that live until it
                // returns.
                unsafe {
                    callback(
                        registration.context as *mut _,
                        event,
                        information.as_mut_ptr().cast(),
                        information.len(),
                    )
                }
            });
            provider.host.callback_settled();
            if status != STATUS_NOT_IMPLEMENTED {
                provider.violation(
                    "EVT-54",
                    CALL,
                    &format!("returned {status:#010x} for an unknown event: return STATUS_SUCCESS"),
                );
            }
            if information != INFORMATION {
                provider.violation("EVT-54", CALL, "wrote to the Information of an event");
            }
        }
        called
    }
}
