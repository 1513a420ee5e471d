//! What is on a memory card, what is only on its way there, and what a power cut leaves of that.

use std::collections::{BTreeMap, BTreeSet};

use crate::storm::Rng;

pub(super) type Inode = u64;
pub(super) const ROOT: Inode = 1;

/// What a file system writes at once.
const BLOCK_BYTES: usize = 4096;
/// What a card writes at once, whatever is cut off in the middle of it.
const SECTOR_BYTES: usize = 512;

/// What a power cut leaves of the writes that nobody has waited for (fsync).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remains {
    /// None of them.
    Nothing,
    /// All up to some moment.
    UpToSomeMoment,
    /// Some of their blocks, in no order, and of some of these only some sectors.
    Anything,
    /// All of them: no more than a kill.
    Everything,
}

/// One file or directory, as whoever reads it now sees it, and as the card has it for certain.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) mode: u16,
    pub(super) now: Vec<u8>,
    certain: Vec<u8>,
    /// In their order, each with the moment at which it was made.
    changes: Vec<(u64, Change)>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) now: BTreeMap<String, Inode>,
    certain: BTreeMap<String, Inode>,
    /// As in [`File`]. A file system's journal keeps their order.
    changes: Vec<(u64, Vec<Link>)>,
}

/// A name that is given to a file, or taken from it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) inode: Option<Inode>,
}

impl File {
    pub(super) fn new(mode: u16) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    pub(super) fn write(&mut self, moment: u64, offset: usize, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        let change = Change::Write { offset, bytes };
        change.apply(&mut self.now);
        self.changes.push((moment, change));
    }

    pub(super) fn resize(&mut self, moment: u64, length: usize) {
        let change = Change::Resize(length);
        change.apply(&mut self.now);
        self.changes.push((moment, change));
    }

    pub(super) fn sync(&mut self) {
        self.changes.clear();
        self.certain.clone_from(&self.now);
    }

    fn after_cut(&mut self, remains: Remains, moment: u64, rng: &mut Rng) {
        for (at, change) in std::mem::take(&mut self.changes) {
            match remains {
                Remains::Nothing => break,
                Remains::UpToSomeMoment if at > moment => break,
                Remains::UpToSomeMoment | Remains::Everything => change.apply(&mut self.certain),
                Remains::Anything => change.apply_some(&mut self.certain, rng),
            }
        }
        self.now.clone_from(&self.certain);
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
            Self::Resize(length) => to.resize(*length, 0),
        }
    }

    fn apply_some(&self, to: &mut Vec<u8>, rng: &mut Rng) {
        let Self::Write { offset, bytes } = self else {
            if rng.percent(50) {
                self.apply(to);
            }
            return;
        };
        for (at, part) in parts(*offset, bytes, BLOCK_BYTES) {
            match rng.below(5) {
                0..=1 => apply(at, part, to),
                2 => {
                    for (at, sector) in parts(at, part, SECTOR_BYTES) {
                        if rng.percent(50) {
                            apply(at, sector, to);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn apply(offset: usize, bytes: &[u8], to: &mut Vec<u8>) {
    let bytes = bytes.to_vec();
    Change::Write { offset, bytes }.apply(to);
}

/// Cuts `bytes` where blocks of the file end.
fn parts(offset: usize, bytes: &[u8], block: usize) -> Vec<(usize, &[u8])> {
    let mut parts = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rest.len().min(block - at % block));
        parts.push((at, part));
        at += part.len();
        rest = behind;
    }
    parts
}

impl Directory {
    pub(super) fn change(&mut self, moment: u64, links: Vec<Link>) {
        for link in &links {
            link.apply(&mut self.now);
        }
        self.changes.push((moment, links));
    }

    pub(super) fn sync(&mut self) {
        self.changes.clear();
        self.certain.clone_from(&self.now);
    }

    fn after_cut(&mut self, remains: Remains, moment: u64, rng: &mut Rng) {
        let changes = std::mem::take(&mut self.changes);
        let some = rng.index(changes.len() + 1);
        for (place, (at, links)) in changes.into_iter().enumerate() {
            let remain = match remains {
                Remains::Nothing => false,
                Remains::UpToSomeMoment => at <= moment,
                Remains::Anything => place < some,
                Remains::Everything => true,
            };
            if !remain {
                break;
            }
            for link in &links {
                link.apply(&mut self.certain);
            }
        }
        self.now.clone_from(&self.certain);
    }
}

impl Link {
    fn apply(&self, to: &mut BTreeMap<String, Inode>) {
        match self.inode {
            Some(inode) => to.insert(self.name.clone(), inode),
            None => to.remove(&self.name),
        };
    }
}

/// Everything on the card.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) nodes: BTreeMap<Inode, Node>,
    pub(super) next: Inode,
}

impl Contents {
    pub(super) fn empty() -> Self {
        let root = Node::Directory(Directory::default());
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
        }
    }

    pub(super) fn sync_all(&mut self) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.sync(),
                Node::Directory(directory) => directory.sync(),
            }
        }
    }

    /// What is there when there is power again; `moment` is the present one.
    pub(super) fn after_cut(&mut self, remains: Remains, moment: u64, rng: &mut Rng) {
        let moments = self.nodes.values().flat_map(Node::moments);
        let first = moments.min().unwrap_or(moment);
        let last = first + rng.below(moment.saturating_sub(first) + 1);
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.after_cut(remains, last, rng),
                Node::Directory(directory) => directory.after_cut(remains, last, rng),
            }
        }
        let mut found = BTreeSet::from([ROOT]);
        let mut look = vec![ROOT];
        while let Some(inode) = look.pop() {
            if let Some(Node::Directory(directory)) = self.nodes.get(&inode) {
                let new: Vec<Inode> = directory.now.values().copied().collect();
                look.extend(new.into_iter().filter(|inode| found.insert(*inode)));
            }
        }
        self.nodes.retain(|inode, _| found.contains(inode));
    }
}

impl Node {
    fn moments(&self) -> Vec<u64> {
        match self {
            Self::File(file) => file.changes.iter().map(|(at, _)| *at).collect(),
            Self::Directory(directory) => directory.changes.iter().map(|(at, _)| *at).collect(),
        }
    }
}
