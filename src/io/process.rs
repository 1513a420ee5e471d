//! Programs that this program starts: one shell command, fed and waited for.

use std::ffi::OsStr;
use std::future::pending;
use std::io;
use std::process::{ExitStatus, Stdio};

use smol::future::or;
use smol::io::AsyncWriteExt;
use smol::process::{Command, driver};

/// Runs `command` with `sh -c`, gives it `input` on its standard input, and waits for its end.
///
/// A command that does not read its input is no error.
///
/// # Errors
///
/// When it cannot be started.
pub async fn run_shell(
    command: &OsStr,
    environment: Vec<(&'static str, Option<Vec<u8>>)>,
    input: Vec<u8>,
) -> io::Result<ExitStatus> {
    use std::os::unix::ffi::OsStringExt;

    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped());
    for (name, value) in environment {
        match value {
            Some(value) => shell.env(name, std::ffi::OsString::from_vec(value)),
            None => shell.env_remove(name),
        };
    }
    let waiting = async {
        let mut child = shell.spawn()?;
        let stdin = child.stdin.take();
        let feeding = async {
            if let Some(mut stdin) = stdin {
                // What it does not want to read may stay unread.
                let _ = stdin.write_all(&input).await;
            }
            pending().await
        };
        or(child.status(), feeding).await
    };
    // Without somebody who drives it, the library would start a thread to wait for the end.
    let driving = async {
        driver().await;
        pending().await
    };
    or(waiting, driving).await
}
