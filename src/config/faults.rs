//! What is wrong with a configuration: each fault with its place and what to change.

use std::fmt;
use std::path::{Path, PathBuf};

/// Everything that is wrong with a configuration; at least one fault, in the order of the places.
///
/// It is shown as one line for each, such as `edgepush.toml:12: unknown key "lsten"; did you mean
/// "listen"?` and `--log: must be one of off, error, warn, info, debug and trace`. The values
/// themselves are not repeated, unless they are numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Faults {
    file: PathBuf,
    faults: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(file: Option<&Path>, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.place);
        Self {
            // Without a file no fault is in a line of it.
            file: file.map_or_else(PathBuf::new, Path::to_path_buf),
            faults,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match fault.place {
                Place::Line(line) => write!(f, "{}:{line}: ", self.file.display())?,
                Place::Flag(flag) => write!(f, "{flag}: ")?,
            }
            f.write_str(&fault.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    pub place: Place,
    /// What is wrong and what to change.
    pub what: String,
}

/// Where a key was given a value.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Place {
    /// A line of the file; the first is 1.
    Line(usize),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
}
