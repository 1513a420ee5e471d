//! A websocket without a library: its user makes the bytes.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::network::{Network, connection};
use super::support::{Gateway, handshake};

pub const HELLO: &str = r#"{"messageType":"hello","use_webpush":true}"#;

/// A websocket of which the test makes the bytes itself.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn open(gateway: &Gateway, network: Network) -> Self {
        let mut stream = connection(network.attacker, gateway.push);
        stream.write_all(handshake("/", "").as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        Self(stream)
    }

    /// The same with its hello said and answered.
    pub fn named(gateway: &Gateway, network: Network) -> Self {
        let mut raw = Self::open(gateway, network);
        raw.0.write_all(&frame(0x81, HELLO.as_bytes())).unwrap();
        assert_eq!(raw.receive().0, 1);
        raw
    }

    /// Opcode and payload of the next frame.
    pub fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut length = u64::from(head[1]);
        if length == 126 {
            let mut two = [0; 2];
            self.0.read_exact(&mut two).unwrap();
            length = u64::from(u16::from_be_bytes(two));
        }
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).unwrap();
        (head[0] & 15, payload)
    }

    /// The close code that comes next, apart from pings and pongs, and its reason.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            let (opcode, payload) = self.receive();
            if opcode == 8 {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return (code, String::from_utf8_lossy(&payload[2..]).into_owned());
            }
            assert!(opcode > 8, "{opcode}: {payload:?}");
        }
    }
}

/// A frame of a user agent, masked with zeros; `first`: FIN, reserved bits and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
