//! `WskCaptureProviderNPI` and `WskReleaseProviderNPI`.

use std::time::{Duration, Instant};

use wsk_sys::nt::{self, NTSTATUS};
use wsk_sys::{
    STATUS_DEVICE_NOT_READY, STATUS_INVALID_PARAMETER, STATUS_NOINTERFACE, STATUS_SUCCESS, WSK_INFINITE_WAIT,
    WSK_NO_WAIT, WSK_PROVIDER_NPI, WSK_REGISTRATION,
};

use super::Capture;
use crate::dispatch;
use crate::provider::Provider;

const CAPTURE: &str = "WskCaptureProviderNPI";
const RELEASE: &str = "WskReleaseProviderNPI";

impl Provider {
    /// `WskCaptureProviderNPI`.
    ///
    /// # Safety
    /// `block` is null or points to a `WSK_REGISTRATION`, and `out` is null or points to memory for the NPI.
    pub unsafe fn capture(
        &self,
        block: *mut WSK_REGISTRATION,
        timeout: u32,
        out: *mut WSK_PROVIDER_NPI,
    ) -> NTSTATUS {
        let provider = &self.0;
        // SAFETY: the caller guarantees that `block` is null or points to a `WSK_REGISTRATION`.
        let registration = match unsafe { provider.registration(block, CAPTURE) } {
            Ok(registration) => registration,
            Err(status) => return status,
        };
        if out.is_null() {
            return STATUS_INVALID_PARAMETER;
        }
        // SAFETY: reading the IRQL has no precondition.
        let irql = unsafe { nt::KeGetCurrentIrql() };
        let highest = if timeout == WSK_NO_WAIT { nt::DISPATCH_LEVEL } else { nt::PASSIVE_LEVEL };
        let mut may_wait = timeout != WSK_NO_WAIT;
        if irql > highest {
            provider.violation("IRQL-07", CAPTURE, &format!("called at IRQL {irql} with timeout {timeout}"));
            may_wait = false;
        }
        let patience = provider.live_config.get(|config| config.capture_patience);
        let mut patient = true;
        let start = Instant::now();
        loop {
            let mut state = registration.state.lock();
            // A call at the same moment as the deregistration (REG-23) fails, which is the safe reading.
            if state.ending {
                return STATUS_DEVICE_NOT_READY;
            }
            state.refused = true;
            if provider.registrar.has_arrived() {
                let (lowest, highest) =
                    provider.live_config.get(|config| (config.lowest_version, config.highest_version));
                // Minor versions are strict supersets: a higher one of the same major serves a lower request
                // (REG-17).
                let serves = registration.version >= lowest && registration.version <= highest;
                if !serves {
                    return STATUS_NOINTERFACE;
                }
                state.captures.push(Capture::here());
                state.refused = false;
                registration.client.set_captures(state.captures.len());
                drop(state);
                let npi = WSK_PROVIDER_NPI {
                    Client: registration.client.raw(),
                    Dispatch: dispatch::client_table(&provider.live_config),
                };
                // SAFETY: the caller passes a structure to fill.
                unsafe { out.write(npi) };
                return STATUS_SUCCESS;
            }
            drop(state);
            if !may_wait {
                return STATUS_DEVICE_NOT_READY;
            }
            let left = if timeout == WSK_INFINITE_WAIT {
                patient.then_some(patience)
            } else {
                let left = Duration::from_millis(u64::from(timeout)).saturating_sub(start.elapsed());
                if left.is_zero() {
                    return STATUS_DEVICE_NOT_READY;
                }
                Some(left)
            };
            if registration.look_again.wait(left) {
                continue;
            }
            if timeout == WSK_INFINITE_WAIT {
                patient = false;
                let detail = format!("waits without a timeout; no provider is available after {patience:?}");
                provider.advice("REG-29", CAPTURE, &detail);
            } else {
                may_wait = false;
            }
        }
    }

    /// `WskReleaseProviderNPI`.
    ///
    /// # Safety
    /// `block` is null or points to a `WSK_REGISTRATION`.
    pub unsafe fn release(&self, block: *mut WSK_REGISTRATION) {
        let provider = &self.0;
        // SAFETY: the caller guarantees that `block` is null or points to a `WSK_REGISTRATION`.
        let Ok(registration) = (unsafe { provider.registration(block, RELEASE) }) else { return };
        let mut state = registration.state.lock();
        // Any capture may be the one that is released; prefer one of the calling thread.
        let own = state.captures.iter().position(Capture::is_own);
        let Some(index) = own.or_else(|| state.captures.len().checked_sub(1)) else {
            let refused = state.refused;
            drop(state);
            if refused {
                return provider.violation(
                    "REG-10",
                    RELEASE,
                    "WskProviderNpi is not the NPI of the last capture",
                );
            }
            return provider.violation(
                "REG-11",
                RELEASE,
                "released more often than captured: match each capture with one release",
            );
        };
        state.captures.swap_remove(index);
        registration.client.set_captures(state.captures.len());
        drop(state);
        registration.progress.set();
    }
}
