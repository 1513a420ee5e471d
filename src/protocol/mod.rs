//! Wire text to [`model`](crate::model) types and back. Pure functions of their arguments.

pub mod answer;
pub mod broadcast_list;
pub mod client_message;
pub mod encryption;
pub mod form;
pub mod forwarded;
pub mod http;
pub mod keyring;
pub mod matrix;
pub mod monitoring;
pub mod origin;
pub mod peer_url;
pub mod problem;
pub mod push_request;
pub mod registration;
pub mod route;
pub mod server_message;
pub mod simplepush_message;
pub mod subscription;
pub mod update_request;
pub mod user_agent;
pub mod vapid;
pub mod vapid_key;
pub mod vapid_token;
pub mod wakeup_form;

#[cfg(test)]
#[path = "../../tests/support/signer.rs"]
pub(crate) mod signer;
