//! Wire text to [`model`](crate::model) types and back. Pure functions of their arguments.

pub mod broadcast_list;
pub mod client_message;
pub mod http;
pub mod keyring;
pub mod origin;
pub mod problem;
pub mod push_request;
pub mod server_message;
pub mod simplepush_message;
pub mod update_request;
pub mod vapid;
pub mod vapid_token;

#[cfg(test)]
#[path = "../../tests/support/signer.rs"]
pub(crate) mod signer;
