//! Making a datagram socket.

use core::future::Future;
use core::net::SocketAddr;

use super::DatagramSocket;
use super::shared::DatagramRef;
use crate::client::{Provider, SecurityDescriptor};
use crate::error::{Error, Operation, Result};
use crate::options::{BindOption, Place, kind};
use crate::socket::{Category, DatagramTable, Opening, SocketParams};

/// Builder for a [`DatagramSocket`]; see [`Provider::datagram`].
///
/// ```
/// # use wsk::options::ExclusiveAddress;
/// # use wsk::{DatagramSocket, Provider, Result};
/// # async fn open(provider: &Provider) -> Result<DatagramSocket> {
/// provider.datagram().option(ExclusiveAddress(true)).bind(([0, 0, 0, 0], 7007).into()).await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `bind`"]
pub struct DatagramBuilder {
    opening: Opening,
}

impl DatagramBuilder {
    pub(crate) fn new(provider: Provider) -> Self {
        Self { opening: Opening::new(provider) }
    }

    /// Sets the security descriptor that says who may share the address (`SO_WSK_SECURITY`). Without it, it
    /// is not shared.
    pub fn security(mut self, descriptor: SecurityDescriptor) -> Self {
        self.opening.security = Some(descriptor);
        self
    }

    /// Sets an option before the bind; a later value of the same option replaces an earlier one.
    pub fn option<O: BindOption<kind::Datagram>>(mut self, option: O) -> Self {
        self.opening.options.insert(O::PLACE, option.to_raw());
        self
    }

    /// Makes the socket, sets the options, and binds it (`WskSocket`, `WskControlSocket`, `WskBind`,
    /// `WskGetLocalAddress`). Port 0 has one assigned.
    ///
    /// # Cancel safety
    /// May be dropped at any time; a socket that was made is closed.
    ///
    /// # Errors
    /// `STATUS_ADDRESS_ALREADY_EXISTS` when the address is taken, `STATUS_ACCESS_DENIED` when it may not be
    /// shared, `STATUS_INVALID_ADDRESS_COMPONENT` when it is not local, `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn bind(self, local: SocketAddr) -> impl Future<Output = Result<DatagramSocket>> + Send + use<> {
        let mut opening = self.opening;
        if !local.is_ipv6() {
            opening.options.remove(Place::V6Only);
        }
        let core = DatagramRef::try_new(opening.provider.client(), opening.security.clone());
        async move {
            let core = core.map_err(|_| Error::out_of_memory(Operation::Socket))?;
            // Leaving early drops the handle, which closes the socket if there is one.
            let mut socket = DatagramSocket { core, local };
            let params = SocketParams { category: Category::Datagram, ipv6: local.is_ipv6() };
            // SAFETY: the table is that of datagram sockets, which the parameters are for, and the core.
            let bound = unsafe { opening.bind::<DatagramTable>(socket.core.socket(), params, local) };
            socket.local = bound.await?;
            Ok(socket)
        }
    }
}
