//! Programs that this program starts: one shell command, fed and waited for.
//!
//! smol's own processes need async-io, which this program does without: see `reactor`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use mio::unix::SourceFd;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::reactor::{Direction, Timer, Watched};

/// How often a kernel before 5.3, which tells nobody, is asked whether the command has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `command` with `sh -c`, gives it `input` on its standard input, and waits for its end.
///
/// # Errors
///
/// When it cannot be started.
pub async fn run_shell(
    command: &OsStr,
    environment: Vec<(&'static str, Option<Vec<u8>>)>,
    input: &[u8],
) -> io::Result<ExitStatus> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(in_memory(input)?);
    for (name, value) in environment {
        match value {
            Some(value) => shell.env(name, OsString::from_vec(value)),
            None => shell.env_remove(name),
        };
    }
    let mut child = shell.spawn()?;
    ended(&child).await;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        Timer::after(POLL_INTERVAL).await;
    }
}

/// A file of no folder, so that nobody has to wait for the command to read it, as with a pipe.
fn in_memory(input: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("edgepush-input", MemfdFlags::CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(file)
}

/// Waits for the end of the child, if the kernel can tell of it.
async fn ended(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return;
    };
    let descriptor = process.as_raw_fd();
    if let Ok(process_end) = Watched::new(SourceFd(&descriptor)) {
        process_end.ready(Direction::Read).await;
    }
}
