//! async-tungstenite: a websocket from the user agent's side.

use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use data_encoding::BASE64;
use smol::future::or;
use smol::stream::StreamExt;

use super::connect::Connector;
use super::entropy;
use super::http_client::{UpgradeError, Upgraded, upgrade};
use super::reactor::Timer;
use super::stream::Stream;
use crate::model::limits::WEBSOCKET_MESSAGE_BYTES_MAX;
use crate::protocol::peer_url::PeerUrl;

/// Read and write buffers of one websocket, in bytes; a longer message grows them. `edgepush load` has
/// thousands.
const BUFFER_BYTES: usize = 1024;
/// Most bytes that may gather when the socket takes none.
const WRITE_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long the gateway may take to read what is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the gateway has for its side of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An open websocket.
#[derive(Debug)]
pub struct AgentSocket(WebSocketStream<Stream>);

/// What came in.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Text(String),
    /// Something that only says that the gateway is there.
    Alive,
    /// The answer to a ping.
    Pong,
    /// Something that is none of the protocol.
    Garbage,
    /// The end of the connection, and why, for people. Not fit for a terminal as it is.
    End(String),
}

impl AgentSocket {
    /// Connects to a gateway and opens a websocket there.
    ///
    /// # Errors
    ///
    /// [`UpgradeError`].
    pub async fn open(url: &PeerUrl, connector: &Connector) -> Result<Self, UpgradeError> {
        let key = BASE64.encode(&entropy::random::<16>());
        let accept = derive_accept_key(key.as_bytes());
        let Upgraded { stream, early } = upgrade(url, &key, &accept, connector).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX));
        let socket =
            WebSocketStream::from_partially_read(stream, early, Role::Client, Some(config)).await;
        Ok(Self(socket))
    }

    /// Waits for the next message. Nothing is lost if the wait is given up.
    pub async fn receive(&mut self) -> Received {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Received::Text(text.as_str().to_owned()),
            Some(Ok(Message::Ping(_))) => Received::Alive,
            Some(Ok(Message::Pong(_))) => Received::Pong,
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => Received::Garbage,
            Some(Ok(Message::Close(None))) => Received::End("closed by the gateway".to_owned()),
            Some(Ok(Message::Close(Some(frame)))) => {
                let code = u16::from(frame.code);
                let reason = frame.reason.as_str();
                Received::End(format!("closed by the gateway: {code} {reason}"))
            }
            Some(Err(error)) => Received::End(error.to_string()),
            None => Received::End("the connection has ended".to_owned()),
        }
    }

    /// Sends one message; whether it could be written in time.
    pub async fn send(&mut self, text: String) -> bool {
        self.write(Message::text(text)).await
    }

    /// Sends a ping; whether it could be written in time.
    pub async fn ping(&mut self) -> bool {
        self.write(Message::Ping(Default::default())).await
    }

    async fn write(&mut self, message: Message) -> bool {
        let sending = self.0.send(message);
        let late = async {
            Timer::after(WRITE_TIMEOUT).await;
            Err(Error::ConnectionClosed)
        };
        or(sending, late).await.is_ok()
    }

    /// Says goodbye, and waits a short while for the answer.
    pub async fn close(mut self) {
        let closing = async {
            if self.0.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.0.next().await {}
            }
        };
        let late = async {
            Timer::after(CLOSE_TIMEOUT).await;
        };
        or(closing, late).await;
    }
}
