//! Wire text to [`model`](crate::model) types and back. Pure functions of their arguments.

pub mod answer;
pub mod client_message;
pub mod encryption;
pub mod http;
pub mod keyring;
pub mod peer_url;
pub mod problem;
pub mod push_request;
pub mod server_message;
pub mod subscription;
pub mod user_agent;
pub mod vapid;
pub mod vapid_key;
