//! The WSK contract, rule by rule, shown on the provider with raw calls, and breaches of it caught by the
//! checker.
//!
//! `tests/rules.tsv` numbers the rules; a test names the ones it shows or catches.

mod support;

mod abort;
mod accept_event;
mod address;
mod alignment;
mod bind;
mod bind_sharing;
mod callbacks_checked;
mod client_event;
mod close;
mod connect;
mod datagram;
mod disconnect;
mod disconnect_checked;
mod disconnect_event;
mod events;
mod events_checked;
mod extension;
mod inspect;
mod inspect_checked;
mod inspect_complete;
mod inspect_ended;
mod irp;
mod irp_calls;
mod irp_checked;
mod irql;
mod life;
mod link;
mod listen;
mod listen_events;
mod listen_parameters;
mod modules;
mod option;
mod option_table;
mod order;
mod receive;
mod receive_event;
mod receive_event_checked;
mod receive_latch;
mod registrar;
mod registration;
mod send;
mod send_checked;
mod socket;
mod socket_checked;
mod socket_connect;
mod stream;
mod threads;
mod timing;
