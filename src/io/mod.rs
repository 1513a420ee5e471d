//! The outside world: the only clocks, sockets, threads, files and randomness of the daemon.
//!
//! Nothing is decided here: what happens is given to the engine, what it asks for is done.

pub mod agent_socket;
mod aside;
pub mod board;
pub mod broadcast_source;
pub mod clock;
pub mod connect;
pub mod console;
pub mod data_directory;
pub mod database_check;
mod datagrams;
pub mod descriptors;
pub mod entropy;
mod framing;
pub mod gateway;
pub mod http;
pub mod http_client;
pub mod key_file;
pub mod listener;
pub mod logger;
mod mailbox;
mod patience;
pub mod private_file;
pub mod process;
pub mod reactor;
pub mod service_manager;
pub mod signals;
pub mod storage_thread;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod turns;
pub mod upstream_link;
mod wakeup_proxy;
mod warned;
mod websocket;
