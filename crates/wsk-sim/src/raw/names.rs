//! Name resolution.

use std::cell::UnsafeCell;
use std::net::SocketAddr;
use std::ptr;
use std::sync::Arc;

use wsk_sys::nt::PEPROCESS;
use wsk_sys::*;

use super::{Buffer, CAddress, Client, PoolBox, Request, read_address, size_of_address};

/// A counted string in non-paged memory, with a terminator behind it.
#[derive(Debug)]
pub struct Text {
    string: PoolBox<UNICODE_STRING>,
    characters: Buffer,
}

// SAFETY: the string points to characters that live as long as it does; whoever has the turn reads or writes them.
unsafe impl Send for Text {}
// SAFETY: as above.
unsafe impl Sync for Text {}

impl Text {
    /// A string.
    pub fn new(text: &str) -> Self {
        let characters: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_ne_bytes).collect();
        let length = (characters.len() - 2) as u16;
        Self::over(Buffer::of(&characters), length)
    }

    /// Room for a string of so many characters and its terminator.
    pub fn room(characters: usize) -> Self {
        Self::over(Buffer::new((characters + 1) * 2), 0)
    }

    fn over(characters: Buffer, length: u16) -> Self {
        let string = UNICODE_STRING {
            Length: length,
            MaximumLength: characters.len() as u16,
            Buffer: characters.address().cast(),
        };
        Self { string: PoolBox::new(string), characters }
    }

    /// The address of the string.
    pub fn as_ptr(&self) -> PUNICODE_STRING {
        self.string.as_ptr()
    }

    /// What it says.
    pub fn get(&self) -> String {
        let bytes = self.characters.read_first(self.string.Length.into());
        let characters: Vec<u16> =
            bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&characters)
    }
}

fn pointer(text: Option<&Arc<Text>>) -> PUNICODE_STRING {
    text.map_or(ptr::null_mut(), |text| text.as_ptr())
}

/// Where the provider writes the list.
#[derive(Debug)]
struct Head(UnsafeCell<PADDRINFOEXW>);

// SAFETY: the provider writes it before the request completes, and it is only read afterwards.
unsafe impl Send for Head {}
// SAFETY: as above.
unsafe impl Sync for Head {}

/// The answer of `WskGetAddressInfo`; the client frees it.
#[derive(Clone, Debug)]
pub struct AddressInfo(Arc<PoolBox<Head>>);

impl AddressInfo {
    /// The list; null before the request has completed.
    pub fn head(&self) -> PADDRINFOEXW {
        // SAFETY: see `Head`.
        unsafe { self.0.0.get().read() }
    }

    /// The addresses of the list.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        let mut next = self.head();
        // SAFETY: the provider's list is valid until it is freed.
        while let Some(entry) = unsafe { next.as_ref() } {
            // SAFETY: as above.
            addresses.extend(unsafe { read_address(entry.ai_addr) });
            next = entry.ai_next;
        }
        addresses
    }
}

/// What `WskGetAddressInfo` is given beside the names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// The hints; `None` passes null.
    pub hints: Option<(i32, ADDRESS_FAMILY)>,
    /// The name space.
    pub name_space: u32,
    /// `OwningProcess`
    pub process: PEPROCESS,
}

impl Client {
    /// Starts `WskGetAddressInfo`.
    pub fn address_info(
        &self,
        request: Request,
        node: Option<&str>,
        service: Option<&str>,
        options: Hints,
    ) -> (Request, AddressInfo) {
        let function = self.dispatch().WskGetAddressInfo.expect("the table has WskGetAddressInfo");
        let client = self.npi().Client;
        let node = node.map(|text| Arc::new(Text::new(text)));
        let service = service.map(|text| Arc::new(Text::new(text)));
        let (node_pointer, service_pointer) = (pointer(node.as_ref()), pointer(service.as_ref()));
        let hints = options.hints.map(|(flags, family)| {
            PoolBox::new(HintBlock(ADDRINFOEXW {
                ai_flags: flags,
                ai_family: family.into(),
                ai_socktype: 0,
                ai_protocol: 0,
                ai_addrlen: 0,
                ai_canonname: ptr::null_mut(),
                ai_addr: ptr::null_mut(),
                ai_blob: ptr::null_mut(),
                ai_bloblen: 0,
                ai_provider: ptr::null_mut(),
                ai_next: ptr::null_mut(),
            }))
        });
        let hints_pointer = hints.as_ref().map_or(ptr::null_mut(), |hints| hints.as_ptr().cast());
        let result = AddressInfo(Arc::new(PoolBox::new(Head(UnsafeCell::new(ptr::null_mut())))));
        let result_pointer = result.0.0.get();
        let kept = (node, service, hints, result.clone());
        let request = request.keep(kept).submit("WskGetAddressInfo", |irp| {
            // SAFETY: the request keeps names, hints and result; the client is the captured one.
            unsafe {
                function(
                    client,
                    node_pointer,
                    service_pointer,
                    options.name_space,
                    ptr::null_mut(),
                    hints_pointer,
                    result_pointer,
                    options.process,
                    ptr::null_mut(),
                    irp,
                )
            }
        });
        (request, result)
    }

    /// `WskFreeAddressInfo`
    pub fn free_address_info(&self, info: &AddressInfo) {
        let function = self.dispatch().WskFreeAddressInfo.expect("the table has WskFreeAddressInfo");
        // SAFETY: the provider recognises lists that are not its own.
        unsafe { function(self.npi().Client, info.head()) };
    }

    /// Starts `WskGetNameInfo`. A string of `None` passes null.
    pub fn name_info(
        &self,
        request: Request,
        address: SocketAddr,
        node: Option<&Arc<Text>>,
        service: Option<&Arc<Text>>,
        flags: u32,
    ) -> Request {
        let function = self.dispatch().WskGetNameInfo.expect("the table has WskGetNameInfo");
        let client = self.npi().Client;
        let (node_pointer, service_pointer) = (pointer(node), pointer(service));
        let length = size_of_address(address) as u32;
        let address = CAddress::new(address);
        let address_pointer = address.as_ptr();
        let kept = (address, node.cloned(), service.cloned());
        request.keep(kept).submit("WskGetNameInfo", |irp| {
            // SAFETY: the request keeps address and strings; the client is the captured one.
            unsafe {
                function(
                    client,
                    address_pointer,
                    length,
                    node_pointer,
                    service_pointer,
                    flags,
                    ptr::null_mut(),
                    ptr::null_mut(),
                    irp,
                )
            }
        })
    }
}

/// Hints that can go with a request.
struct HintBlock(#[allow(dead_code, reason = "the provider reads it")] ADDRINFOEXW);

// SAFETY: the pointers in the hints are null.
unsafe impl Send for HintBlock {}
