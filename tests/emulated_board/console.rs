//! The serial line of a board, with a shell at its other end that repeats nothing and asks nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long it listens before it looks at the clock.
const GLANCE: Duration = Duration::from_millis(200);
/// How often it asks whether there is a shell: what is said before there is one may be lost.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// How long QEMU takes to make the socket, on a machine that is busy.
const SOCKET_MAX: Duration = Duration::from_secs(30);

pub(super) struct Console {
    stream: UnixStream,
    /// What comes, read by a thread of its own: QEMU writes single bytes, and a few hundred that nobody reads
    /// stop the whole board.
    coming: Receiver<Vec<u8>>,
    /// What has come and was not asked for yet.
    heard: String,
    /// How many commands were told: their answers carry it, so that none is taken for another's.
    told: u64,
}

impl Console {
    /// On the socket that QEMU is about to make.
    pub(super) fn on(socket: &Path) -> Self {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(fault) => assert!(start.elapsed() < SOCKET_MAX, "no serial line: {fault}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let (sender, coming) = channel();
        let mut reader = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                let _ = sender.send(bytes[..length].to_vec());
            }
        });
        Self {
            stream,
            coming,
            heard: String::new(),
            told: 0,
        }
    }

    /// Whether there is a shell, after so long at most.
    pub(super) fn wait_for_shell(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < patience {
            if self.try_run("true", ASKED_EVERY).is_some() {
                return true;
            }
        }
        false
    }

    /// Has a command carried out.
    pub(super) fn run(&mut self, command: &str, patience: Duration) -> (i32, String) {
        let answer = self.try_run(command, patience);
        answer.unwrap_or_else(|| panic!("no answer to {command:?}; heard: {:?}", self.heard))
    }

    /// Says something and waits for nothing.
    pub(super) fn tell(&mut self, line: &str) {
        self.stream.write_all(line.as_bytes()).unwrap();
        self.stream.write_all(b"\n").unwrap();
    }

    fn try_run(&mut self, command: &str, patience: Duration) -> Option<(i32, String)> {
        self.told += 1;
        let told = self.told;
        self.heard.clear();
        // Quoted apart: a terminal that repeats this line does not say what is waited for.
        self.tell(&format!(
            "echo 'beg''in {told}'; {{ {command}\n}} 2>&1; echo 'e''nd {told}' $?"
        ));
        let (begin, end) = (format!("begin {told}\n"), format!("end {told} "));
        let start = Instant::now();
        while start.elapsed() < patience {
            self.listen();
            let Some((_, rest)) = self.heard.split_once(&begin) else {
                continue;
            };
            let Some((output, rest)) = rest.split_once(&end) else {
                continue;
            };
            if let Some((status, _)) = rest.split_once('\n') {
                return Some((status.trim().parse().ok()?, output.trim().to_owned()));
            }
        }
        None
    }

    fn listen(&mut self) {
        if let Ok(bytes) = self.coming.recv_timeout(GLANCE) {
            let text = String::from_utf8_lossy(&bytes);
            self.heard.push_str(&text.replace('\r', ""));
        }
    }
}
