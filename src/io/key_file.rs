//! The key file: made on the first start, readable by its owner only.
//!
//! One master key a line, 64 hex digits, oldest first: a new key is added below, and names minted
//! under the older ones stay good. Losing this file loses every endpoint; losing the database does
//! not.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use log::warn;

use super::{entropy, private_file};
use crate::protocol::keyring::{KEY_BYTES, Keyring};

/// The keys of this gateway.
#[derive(Debug)]
pub struct Keys {
    /// What is minted and opened with them.
    pub keyring: Keyring,
    /// The file was made just now: no name was ever minted under it.
    pub are_new: bool,
}

/// Reads the key file at `path`, or makes it with one random key.
///
/// # Errors
///
/// [`KeyFileError`]; a file that is there but cannot be used is never replaced.
pub fn load_or_make(path: &Path) -> Result<Keys, KeyFileError> {
    let fail = |fault| KeyFileError::new(path, fault);
    let (text, are_new) = match fs::read_to_string(path) {
        Ok(text) => (text, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = write(path, &[entropy::random()]);
            (made.map_err(|error| fail(Fault::Make(error)))?, true)
        }
        Err(error) => return Err(fail(Fault::Read(error))),
    };
    warn_if_others_can_read(path);
    let keys = parse(&text).ok_or_else(|| fail(Fault::Content))?;
    let keyring = Keyring::new(&keys).map_err(|_| fail(Fault::Content))?;
    Ok(Keys { keyring, are_new })
}

/// Adds the keys of the file `other` to the file at `path`, which may be missing, so that what was
/// minted under any of them stays good. Those of `other` are the newest then.
///
/// # Errors
///
/// [`KeyFileError`], also where there would be too many; both files are then as they were.
pub fn add(path: &Path, other: &Path) -> Result<(), KeyFileError> {
    let read = |path: &Path| {
        let fail = |fault| KeyFileError::new(path, fault);
        let text = fs::read_to_string(path).map_err(|error| fail(Fault::Read(error)))?;
        parse(&text).ok_or_else(|| fail(Fault::Content))
    };
    let present = if path.exists() {
        read(path)?
    } else {
        Vec::new()
    };
    let added = read(other)?;
    let mut all = present.clone();
    all.retain(|key| !added.contains(key));
    all.extend(added);
    Keyring::new(&all).map_err(|_| KeyFileError::new(path, Fault::Content))?;
    if all != present {
        write(path, &all).map_err(|error| KeyFileError::new(path, Fault::Make(error)))?;
    }
    Ok(())
}

/// Makes the file, or puts it in the place of the one that is there; what is in it.
fn write(path: &Path, keys: &[[u8; KEY_BYTES]]) -> io::Result<String> {
    let lines = keys.iter().map(|key| format!("{}\n", HEXLOWER.encode(key)));
    let text: String = lines.collect();
    private_file::replace(path, &path.with_extension("key.new"), &text)?;
    Ok(text)
}

fn parse(text: &str) -> Option<Vec<[u8; KEY_BYTES]>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let bytes = HEXLOWER_PERMISSIVE.decode(line.as_bytes()).ok()?;
            bytes.try_into().ok()
        })
        .collect()
}

fn warn_if_others_can_read(path: &Path) {
    if private_file::is_open_to_others(path) {
        warn!(
            "key file can be read by others path={}; run: chmod 600 {}",
            path.display(),
            path.display()
        );
    }
}

/// A key file that cannot be used.
#[derive(Debug)]
pub struct KeyFileError {
    path: PathBuf,
    fault: Fault,
}

impl KeyFileError {
    fn new(path: &Path, fault: Fault) -> Self {
        Self {
            path: path.to_owned(),
            fault,
        }
    }
}

#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Make(io::Error),
    Content,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Read(error) => write!(f, "cannot read the key file {path}: {error}"),
            Fault::Make(error) => write!(f, "cannot make the key file {path}: {error}"),
            Fault::Content => write!(
                f,
                "key file {path} must hold one to sixteen lines of 64 hex digits; restore it from a \
                 backup (a new one would make every endpoint invalid)"
            ),
        }
    }
}

impl std::error::Error for KeyFileError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("edgepush-key-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn key_file_is_made_once_and_only_its_owner_reads_it() {
        let directory = Directory::new("made");
        let path = directory.0.join("edgepush.key");
        let first = load_or_make(&path).unwrap();
        assert!(first.are_new);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(&directory.0).unwrap().count(),
            1,
            "nothing left over"
        );

        let again = load_or_make(&path).unwrap();
        assert!(!again.are_new);
        assert!(again.keyring.is_ours(first.keyring.mint_uaid([7; 8])));
    }

    #[test]
    fn key_file_that_cannot_be_used_is_left_alone_and_named() {
        let directory = Directory::new("bad");
        let path = directory.0.join("edgepush.key");
        for bad in [
            "",
            "abc\n",
            &"0".repeat(63),
            &"g".repeat(64),
            &"00\n".repeat(20),
        ] {
            fs::write(&path, bad).unwrap();
            let message = load_or_make(&path).unwrap_err().to_string();
            assert!(message.contains("edgepush.key must hold"), "{message}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn keys_of_two_files_are_all_kept_and_the_added_ones_mint() {
        let directory = Directory::new("two");
        let path = |name: &str| directory.0.join(name);
        let here = load_or_make(&path("edgepush.key")).unwrap().keyring;
        let there = load_or_make(&path("backup.key")).unwrap().keyring;
        for _ in 0..2 {
            add(&path("edgepush.key"), &path("backup.key")).unwrap();
            let both = load_or_make(&path("edgepush.key")).unwrap().keyring;
            assert!(both.is_ours(here.mint_uaid([7; 8])));
            assert_eq!(both.mint_uaid([7; 8]), there.mint_uaid([7; 8]));
            let text = fs::read_to_string(path("edgepush.key")).unwrap();
            assert_eq!(text.lines().count(), 2);
        }
        add(&path("new.key"), &path("backup.key")).unwrap();
        let new = load_or_make(&path("new.key")).unwrap().keyring;
        assert_eq!(new.mint_uaid([7; 8]), there.mint_uaid([7; 8]));
        assert!(add(&path("new.key"), &path("missing")).is_err());
    }

    #[test]
    fn key_added_below_mints_and_the_older_one_still_opens() {
        let directory = Directory::new("added");
        let path = directory.0.join("edgepush.key");
        let old = load_or_make(&path).unwrap().keyring;
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str(&"AB".repeat(32));
        fs::write(&path, text).unwrap();
        let both = load_or_make(&path).unwrap().keyring;
        assert!(both.is_ours(old.mint_uaid([7; 8])));
        assert_ne!(both.mint_uaid([7; 8]), old.mint_uaid([7; 8]));
    }
}
