//! Structures of the Network Module Registrar (`netioddk.h`).

use core::ffi::c_void;

use crate::PNPIID;
use crate::enumeration::c_enum;
use crate::nt::{GUID, HANDLE, NTSTATUS};

c_enum! {
    /// The kind of a module's identifier.
    NPI_MODULEID_TYPE {
        /// By a GUID.
        MIT_GUID = 1,
        /// By the local identifier of an interface.
        MIT_IF_LUID = 2,
    }
}

/// A locally unique identifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LUID {
    /// The low half.
    pub LowPart: u32,
    /// The high half.
    pub HighPart: i32,
}

/// The identifier proper of a module.
#[repr(C)]
#[derive(Clone, Copy)]
pub union NPI_MODULEID_VALUE {
    /// With [`NPI_MODULEID_TYPE::MIT_GUID`].
    pub Guid: GUID,
    /// With [`NPI_MODULEID_TYPE::MIT_IF_LUID`].
    pub IfLuid: LUID,
}

impl core::fmt::Debug for NPI_MODULEID_VALUE {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("NPI_MODULEID_VALUE")
    }
}

/// Identifies a network module.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NPI_MODULEID {
    /// The size of this structure.
    pub Length: u16,
    /// Which member of the union holds.
    pub Type: NPI_MODULEID_TYPE,
    /// The identifier.
    pub Value: NPI_MODULEID_VALUE,
}
/// A pointer to a module identifier.
pub type PNPI_MODULEID = *const NPI_MODULEID;

/// The registration of a module with the registrar.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NPI_REGISTRATION_INSTANCE {
    /// Zero.
    pub Version: u16,
    /// The size of this structure.
    pub Size: u16,
    /// The interface.
    pub NpiId: PNPIID,
    /// The module.
    pub ModuleId: PNPI_MODULEID,
    /// A number the interface defines.
    pub Number: u32,
    /// Characteristics the interface defines:
    /// [`WSK_PROVIDER_CHARACTERISTICS`](crate::WSK_PROVIDER_CHARACTERISTICS).
    pub NpiSpecificCharacteristics: *const c_void,
}

/// A provider appeared that the client may attach to.
pub type NPI_CLIENT_ATTACH_PROVIDER_FN = unsafe extern "system" fn(
    NmrBindingHandle: HANDLE,
    ClientContext: *mut c_void,
    ProviderRegistrationInstance: *mut NPI_REGISTRATION_INSTANCE,
) -> NTSTATUS;
/// The client must detach from a provider.
pub type NPI_CLIENT_DETACH_PROVIDER_FN =
    unsafe extern "system" fn(ClientBindingContext: *mut c_void) -> NTSTATUS;
/// Both sides have detached; the binding context can go.
pub type NPI_CLIENT_CLEANUP_BINDING_CONTEXT_FN = unsafe extern "system" fn(ClientBindingContext: *mut c_void);

/// The registration of a client with the registrar.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NPI_CLIENT_CHARACTERISTICS {
    /// Zero.
    pub Version: u16,
    /// The size of this structure.
    pub Length: u16,
    /// Called for each provider.
    pub ClientAttachProvider: Option<NPI_CLIENT_ATTACH_PROVIDER_FN>,
    /// Called when a provider or the client deregisters.
    pub ClientDetachProvider: Option<NPI_CLIENT_DETACH_PROVIDER_FN>,
    /// Called when a binding has ended, or null.
    pub ClientCleanupBindingContext: Option<NPI_CLIENT_CLEANUP_BINDING_CONTEXT_FN>,
    /// The registration.
    pub ClientRegistrationInstance: NPI_REGISTRATION_INSTANCE,
}
