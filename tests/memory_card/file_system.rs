//! fuser: what the kernel asks of the card. Everything fails when the power is off.

use std::ffi::OsStr;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::contents::{Directory, File, Inode, Link, Node};
use super::{CutAt, Power, State};

/// How long the kernel may believe what it was told: nobody else changes anything.
const TTL: Duration = Duration::from_secs(3600);
const DIRECTORY_MODE: u16 = 0o755;

pub(super) struct FileSystem(pub(super) Arc<Power>);

/// What is wrong, as the kernel is told.
type Answer<T> = Result<T, Errno>;

impl FileSystem {
    /// The state, if there is power.
    fn state(&self) -> Answer<MutexGuard<'_, State>> {
        let state = self.0.lock();
        if state.on { Ok(state) } else { Err(Errno::EIO) }
    }

    /// The state for a change, unless the power goes right before it.
    fn change(&self, written: Option<Inode>) -> Answer<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        let now = match (state.cut_at.clone(), written) {
            (Some(CutAt::Change(at)), _) => at <= state.moment,
            (Some(CutAt::WriteTo(name, left)), Some(inode)) if state.is_named(inode, name) => {
                state.cut_at = Some(CutAt::WriteTo(name, left.saturating_sub(1)));
                left == 0
            }
            (Some(CutAt::WriteTo(..)) | None, _) => false,
        };
        if now {
            self.0.go(&mut state);
            return Err(Errno::EIO);
        }
        state.moment += 1;
        Ok(state)
    }

    fn sync(&self, inode: INodeNo) -> Answer<()> {
        let pause = {
            let mut state = self.state()?;
            let max = state.sync_micros_max;
            state.rng.below(max + 1)
        };
        std::thread::sleep(Duration::from_micros(pause));
        let mut state = self.change(None)?;
        if state.lies {
            return Ok(());
        }
        match state.contents.nodes.get_mut(&inode.0) {
            Some(Node::File(file)) => file.sync(),
            Some(Node::Directory(directory)) => directory.sync(),
            None => return Err(Errno::ENOENT),
        }
        Ok(())
    }

    fn make(&self, parent: INodeNo, name: &OsStr, node: Node) -> Answer<FileAttr> {
        let mut state = self.change(None)?;
        let inode = state.contents.next;
        state.contents.next += 1;
        state.contents.nodes.insert(inode, node);
        let link = Link {
            name: text(name)?,
            inode: Some(inode),
        };
        state.link(parent, vec![link])?;
        state.attributes(inode)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr) -> Answer<()> {
        let mut state = self.change(None)?;
        state.find(parent, name)?;
        let link = Link {
            name: text(name)?,
            inode: None,
        };
        state.link(parent, vec![link])
    }
}

impl State {
    fn directory(&self, inode: INodeNo) -> Answer<&Directory> {
        match self.contents.nodes.get(&inode.0) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn file(&mut self, inode: INodeNo) -> Answer<&mut File> {
        match self.contents.nodes.get_mut(&inode.0) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Answer<Inode> {
        let directory = self.directory(parent)?;
        let found = name.to_str().and_then(|name| directory.now.get(name));
        found.copied().ok_or(Errno::ENOENT)
    }

    fn link(&mut self, parent: INodeNo, links: Vec<Link>) -> Answer<()> {
        let moment = self.moment;
        match self.contents.nodes.get_mut(&parent.0) {
            Some(Node::Directory(directory)) => {
                directory.change(moment, links);
                Ok(())
            }
            Some(Node::File(_)) | None => Err(Errno::ENOTDIR),
        }
    }

    fn is_named(&self, inode: Inode, name: &str) -> bool {
        self.contents.nodes.values().any(|node| match node {
            Node::Directory(directory) => directory.now.get(name) == Some(&inode),
            Node::File(_) => false,
        })
    }

    fn attributes(&self, inode: Inode) -> Answer<FileAttr> {
        let (kind, perm, size) = match self.contents.nodes.get(&inode) {
            Some(Node::File(file)) => (FileType::RegularFile, file.mode, file.now.len()),
            Some(Node::Directory(_)) => (FileType::Directory, DIRECTORY_MODE, 0),
            None => return Err(Errno::ENOENT),
        };
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(inode),
            size: size as u64,
            blocks: (size as u64).div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

fn text(name: &OsStr) -> Answer<String> {
    name.to_str().map(str::to_owned).ok_or(Errno::EINVAL)
}

/// Gives an answer, or says what is wrong.
macro_rules! answer {
    ($reply:ident, $answer:expr, $value:pat => $good:expr) => {
        match $answer {
            Ok($value) => $good,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for FileSystem {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self
            .state()
            .and_then(|state| state.attributes(state.find(parent, name)?));
        answer!(reply, found, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.state().and_then(|state| state.attributes(inode.0));
        answer!(reply, found, attr => reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = self.change(size.map(|_| inode.0)).and_then(|mut state| {
            let moment = state.moment;
            if let Some(size) = size {
                state.file(inode)?.resize(moment, size as usize);
            }
            if let (Some(mode), Ok(file)) = (mode, state.file(inode)) {
                file.mode = (mode & 0o7777) as u16;
            }
            state.attributes(inode.0)
        });
        answer!(reply, done, attr => reply.attr(&TTL, &attr));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.make(parent, name, Node::Directory(Directory::default()));
        answer!(reply, made, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.change(None).and_then(|mut state| {
            // Nothing here moves a file to another directory.
            if parent != new_parent {
                return Err(Errno::EXDEV);
            }
            let inode = Some(state.find(parent, name)?);
            let from = Link {
                name: text(name)?,
                inode: None,
            };
            let to = Link {
                name: text(new_name)?,
                inode,
            };
            state.link(parent, vec![from, to])
        });
        answer!(reply, done, () => reply.ok());
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let file = File::new((mode & !umask & 0o7777) as u16);
        let made = self.make(parent, name, Node::File(file));
        let flags = FopenFlags::FOPEN_KEEP_CACHE;
        answer!(reply, made, attr => reply.created(&TTL, &attr, Generation(0), FileHandle(0), flags));
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let found = self.state().and_then(|state| state.attributes(inode.0));
        answer!(reply, found, _ => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE));
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.state().and_then(|mut state| {
            let bytes = &state.file(inode)?.now;
            let from = bytes.len().min(offset as usize);
            let to = bytes.len().min(from + size as usize);
            Ok(bytes[from..to].to_vec())
        });
        answer!(reply, read, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.change(Some(inode.0)).and_then(|mut state| {
            let moment = state.moment;
            state.file(inode)?.write(moment, offset as usize, bytes);
            Ok(bytes.len() as u32)
        });
        answer!(reply, done, length => reply.written(length));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(inode), () => reply.ok());
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(inode), () => reply.ok());
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let list = self.state().and_then(|state| {
            let names = state.directory(inode)?.now.iter();
            let list = names
                .map(|(name, inode)| Ok((*inode, state.attributes(*inode)?.kind, name.clone())));
            list.collect::<Answer<Vec<_>>>()
        });
        match list {
            Err(error) => reply.error(error),
            Ok(list) => {
                for (place, (inode, kind, name)) in
                    list.into_iter().enumerate().skip(offset as usize)
                {
                    if reply.add(INodeNo(inode), place as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
        }
    }
}
