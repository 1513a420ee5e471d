//! Wires the layers: opens what is kept, starts the threads, runs the event loop, and ends in
//! order.

mod addresses;
mod upstream;

use std::fmt;
use std::io;
use std::net::{self, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use smol::LocalExecutor;
use smol::channel::Receiver;

use crate::config::boards::ChosenBy;
use crate::config::{self, Config};
use crate::engine::{Engine, Input, Settings};
use crate::io::broadcast_source::BroadcastSource;
use crate::io::clock::{self, Clock};
use crate::io::connect::Connector;
use crate::io::console::{Console, ConsoleError, Facts, SnapshotRequest};
use crate::io::data_directory::{DataDirectory, DataDirectoryError};
use crate::io::database_check::DatabaseCheck;
use crate::io::gateway::Gateway;
use crate::io::key_file::{self, KeyFileError};
use crate::io::reactor::{self, Timer};
use crate::io::service_manager::{self, ServiceManager};
use crate::io::signals::{ReloadSignals, StopSignals};
use crate::io::storage_thread::StorageThread;
use crate::io::tcp::Tcps;
use crate::io::tls::{Files, Tls, TlsError};
use crate::io::{descriptors, entropy, listener, logger, turns};
use crate::model::durability::Durability;
use crate::model::ids::DatabaseId;
use crate::model::store::Opened;
use crate::model::time::Now;
use crate::protocol::http::BaseUrl;
use crate::protocol::keyring::Keyring;
use crate::protocol::peer_url::{PeerUrl, PeerUrlError};
use crate::storage::{self, FreshDatabase, OpenError, Store, Synchronous};

/// Longest that ending may take: systemd and people wait. What is not committed by then is not
/// answered either.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// A database that turns out to be damaged is replaced at most once in this time. If it is damaged
/// again so soon it is not the file that is at fault, and user agents are better left connected.
const REPLACE_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Serves until SIGTERM or SIGINT.
///
/// When the database turns out to be damaged, everything ends in order and starts again with one that
/// is not, in the same process.
///
/// # Errors
///
/// [`ServeError`] when it cannot start, or cannot go on.
pub fn serve(mut config: Config) -> Result<(), ServeError> {
    logger::start(config.log);
    log_board(&config);
    config.limits.connections_max = descriptors::make_room_for(config.limits.connections_max);
    let mut process = Process {
        passed: service_manager::passed_listener().map_err(ServeError::Passed)?,
        manager: Rc::new(ServiceManager::from_env()),
        signals: StopSignals::catch().map_err(ServeError::System)?,
        directory: DataDirectory::open(&config.data).map_err(ServeError::Directory)?,
    };
    let mut round = Round::default();
    while serve_once(&mut config, &mut process, round)? == Ended::Damaged {
        process.manager.replacing();
        round.replaced_at = Some(clock::monotonic());
    }
    Ok(())
}

/// What is there once, whatever is started again.
struct Process {
    /// The push port, opened by the service manager. It is open also between two rounds, when nobody
    /// accepts, and so nobody is refused.
    passed: Option<net::TcpListener>,
    manager: Rc<ServiceManager>,
    signals: StopSignals,
    directory: DataDirectory,
}

/// What has gone before.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// When the database was found to be damaged; `None` in the first round.
    replaced_at: Option<Instant>,
}

impl Round {
    fn is_first(self) -> bool {
        self.replaced_at.is_none()
    }

    /// When the database may be replaced; `None` for at any time.
    fn may_replace_at(self) -> Option<Instant> {
        self.replaced_at?.checked_add(REPLACE_INTERVAL)
    }
}

/// Why serving ended in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    /// A person or the system wants it.
    Asked,
    /// The database is damaged.
    Damaged,
}

fn serve_once(
    config: &mut Config,
    process: &mut Process,
    round: Round,
) -> Result<Ended, ServeError> {
    let Process {
        passed,
        manager,
        signals,
        directory,
    } = process;
    // Before the certificate is read: a signal that comes meanwhile must not end the process.
    let reloads = reload_signals(config, manager)?;
    let tls = tls(config)?;
    let keys = key_file::load_or_make(&directory.key_file()).map_err(ServeError::Key)?;
    let (store, opened) = open_store(config, directory, keys.are_new, !round.is_first())?;
    let clock = Clock::new(config.vapid_clock);
    let engine = engine(config, clock.read(), keys.keyring, opened)?;

    let executor = Rc::new(LocalExecutor::new());
    let running = Rc::clone(&executor);
    reactor::block_on(turns::run(&running, async {
        let push = push_listener(config, passed.as_ref())?;
        let address = push.local_addr().map_err(ServeError::System)?;
        let storage = StorageThread::start(store).map_err(ServeError::System)?;
        // The next round, if there is one, must be found where this one was.
        config.listen = address;
        let (console, asked) = console(config, directory, &storage)?;
        config.console = console.as_ref().map(Console::address);
        let gateway = Gateway::new(
            engine,
            clock,
            (config.limits.clone(), config.access.clone()),
            storage.operations.clone(),
            executor,
        );
        info!(
            "started version={} data={}",
            env!("CARGO_PKG_VERSION"),
            directory.path().display()
        );

        begin(&gateway, config, asked)?;
        gateway.spawn(database_check(config, directory, &storage).run());
        gateway.spawn(Rc::clone(manager).run_watchdog());
        let addresses = addresses::text(config);
        if round.is_first() {
            addresses::announce(&addresses);
        }
        manager.ready(&addresses);
        if let Some(signals) = reloads {
            let reloading = run_reloads(signals, tls.clone(), Rc::clone(manager), addresses);
            gateway.spawn(reloading);
        }
        let accepting = listener::run(Rc::clone(&gateway), push, tls);
        let stopping = stopping((signals, manager), accepting, &storage, round);
        let ended = run(&gateway, &storage, stopping).await;
        // The console first: it reads the database, which would keep its log from being emptied.
        if let Some(console) = console {
            console.stop();
        }
        storage.stop();
        ended
    }))
}

/// The console, if there is to be one, and what it asks for.
fn console(
    config: &Config,
    directory: &DataDirectory,
    storage: &StorageThread,
) -> Result<(Option<Console>, Receiver<SnapshotRequest>), ServeError> {
    let (asking, asked) = smol::channel::bounded(1);
    let facts = Facts {
        data_directory: directory.path().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        io_account: storage.io_account.clone(),
        health: Arc::clone(&storage.health),
        push_address: addresses::of_push(config),
    };
    let console = config
        .console
        .map(|console| Console::bind(console, asking, facts))
        .transpose()
        .map_err(ServeError::Console)?;
    Ok((console, asked))
}

fn open_store(
    config: &Config,
    directory: &DataDirectory,
    key_is_new: bool,
    suspected: bool,
) -> Result<(Store, Opened), ServeError> {
    let fresh = FreshDatabase {
        id: DatabaseId(entropy::random()),
        key_is_new,
    };
    let settings = store_settings(config);
    Store::start(directory.path(), &settings, fresh, suspected).map_err(ServeError::Store)
}

fn database_check(
    config: &Config,
    directory: &DataDirectory,
    storage: &StorageThread,
) -> DatabaseCheck {
    DatabaseCheck {
        directory: directory.path().to_owned(),
        interval: config.limits.database_check_interval,
        health: Arc::clone(&storage.health),
        damage: storage.damage.0.clone(),
    }
}

/// Starts what goes on by itself.
fn begin(
    gateway: &Rc<Gateway>,
    config: &Config,
    snapshots: Receiver<SnapshotRequest>,
) -> Result<(), ServeError> {
    let answering = Rc::clone(gateway);
    gateway.spawn(async move { answering.run_snapshots(snapshots).await });
    if let Some(source) = broadcast_source(config)? {
        gateway.spawn(source.run(Rc::clone(gateway), config.broadcasts.poll));
    }
    upstream::begin(gateway, config)?;
    // The engine may have asked for something already.
    gateway.turn(Input::Timeout);
    Ok(())
}

/// Accepts connections until there is a reason to end.
async fn stopping(
    (signals, manager): (&mut StopSignals, &ServiceManager),
    accepting: impl Future<Output = ()>,
    storage: &StorageThread,
    round: Round,
) -> Ended {
    let asked = async {
        let signal = signals.next().await;
        info!("stopping on {signal}");
        manager.stopping();
        Ended::Asked
    };
    let closed = async {
        accepting.await;
        info!("stopping on the listener's end");
        Ended::Asked
    };
    let damaged = async {
        // Never closed: its other end is in the same place.
        let _ = storage.damage.1.recv().await;
        if let Some(at) = round.may_replace_at()
            && clock::monotonic() < at
        {
            error!("database_damaged_again advice=\"restart edgepush to have it replaced\"");
            Timer::at(at).await;
        }
        info!("restarting for the database");
        Ended::Damaged
    };
    smol::future::or(asked, smol::future::or(closed, damaged)).await
}

/// Runs the tasks that everything hangs on until `stopping` comes, then ends in order: no more
/// connections, the engine's goodbye to every user agent, the last commit.
async fn run(
    gateway: &Rc<Gateway>,
    storage: &StorageThread,
    stopping: impl Future<Output = Ended>,
) -> Result<Ended, ServeError> {
    let ticking = async {
        gateway.run_timer().await;
        Ok(Ended::Asked)
    };
    let storing = async {
        gateway.run_storage_replies(storage.replies.clone()).await;
        error!("storage thread died");
        Err(ServeError::StorageDied)
    };
    let serving = async {
        // The listener is closed when this is over.
        let ended = stopping.await;
        let late = async {
            Timer::after(STOP_TIMEOUT).await;
            warn!(
                "stopped before everything was in order secs={}",
                STOP_TIMEOUT.as_secs()
            );
        };
        smol::future::or(gateway.stop(), late).await;
        Ok(ended)
    };
    smol::future::or(serving, smol::future::or(storing, ticking)).await
}

fn broadcast_source(config: &Config) -> Result<Option<BroadcastSource>, ServeError> {
    let broadcasts = &config.broadcasts;
    Ok(match (&broadcasts.url, &broadcasts.file) {
        (Some(url), _) => {
            let url = PeerUrl::endpoint(url.as_str()).map_err(ServeError::Broadcasts)?;
            Some(BroadcastSource::Url(url, Connector::new(None)))
        }
        (None, Some(file)) => Some(BroadcastSource::File(file.clone())),
        (None, None) => None,
    })
}

/// The push port: as it was passed, or else as configured.
fn push_listener(config: &Config, passed: Option<&net::TcpListener>) -> Result<Tcps, ServeError> {
    let Some(passed) = passed else {
        return listener::bind(config.listen)
            .map_err(|error| ServeError::Listen(config.listen, error));
    };
    let listener = passed.try_clone().and_then(listener::take);
    let listener = listener.map_err(ServeError::Passed)?;
    info!("push port passed by the service manager, listen has no effect");
    Ok(listener)
}

/// What tells to read files again, where there are such files or a service manager that may ask for it.
/// Anywhere else SIGHUP ends the process, as a terminal that is closed wants it.
fn reload_signals(
    config: &Config,
    manager: &ServiceManager,
) -> Result<Option<ReloadSignals>, ServeError> {
    (manager.is_there() || config.tls.certificate.is_some())
        .then(ReloadSignals::catch)
        .transpose()
        .map_err(ServeError::System)
}

/// Reads the certificate again at each signal, if there is one. Never ends.
async fn run_reloads(
    mut signals: ReloadSignals,
    tls: Option<Rc<Tls>>,
    manager: Rc<ServiceManager>,
    status: String,
) {
    loop {
        signals.next().await;
        manager.reloading();
        match &tls {
            Some(tls) => tls.reload().await,
            None => info!("nothing to read again; a changed configuration needs a restart"),
        }
        manager.ready(&status);
    }
}

/// TLS as configured, if it is.
fn tls(config: &Config) -> Result<Option<Rc<Tls>>, ServeError> {
    let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) else {
        return Ok(None);
    };
    let files = Files {
        certificate: certificate.clone(),
        key: key.clone(),
    };
    let tls = Tls::load(files, config.tls.only).map_err(ServeError::Tls)?;
    Ok(Some(tls))
}

fn engine(
    config: &Config,
    now: Now,
    keyring: Keyring,
    opened: Opened,
) -> Result<Engine, ServeError> {
    let settings = Settings {
        limits: config.limits.clone(),
        durability: config.durability,
        simplepush: config.simplepush.clone(),
        unifiedpush: config.unifiedpush,
        public_url: config.public_url.as_ref().map(BaseUrl::configured),
        access: config.access.clone(),
        upstream: upstream::choice(config),
        keyring,
        opened,
        random: entropy::random(),
    };
    Engine::new(now, settings).ok_or(ServeError::RunsUsedUp)
}

fn store_settings(config: &Config) -> storage::Settings {
    let config::Storage {
        page_bytes,
        cache_bytes,
        checkpoint_pages,
        journal_bytes_max,
    } = config.storage;
    storage::Settings {
        page_bytes,
        cache_bytes,
        checkpoint_pages,
        journal_bytes_max,
        synchronous: match config.durability {
            Durability::Strict => Synchronous::Full,
            Durability::Relaxed => Synchronous::Normal,
        },
        ..storage::Settings::default()
    }
    .with_full_reserve()
}

/// Says which board's limits these are.
fn log_board(config: &Config) {
    let by = match config.board.by {
        ChosenBy::Configuration => "configuration",
        ChosenBy::Model => "its own name",
        ChosenBy::Target => "target, the machine is none that is known",
    };
    info!("board name={} chosen_by=\"{by}\"", config.board.board.name);
}

/// Why serving did not start, or ended.
#[derive(Debug)]
pub enum ServeError {
    /// The data directory.
    Directory(DataDirectoryError),
    /// The key file.
    Key(KeyFileError),
    /// The certificate or its key.
    Tls(TlsError),
    /// The database.
    Store(OpenError),
    /// The URL of the broadcasts.
    Broadcasts(PeerUrlError),
    /// The socket that the service manager has passed.
    Passed(io::Error),
    /// The URL of the main service.
    Upstream(PeerUrlError),
    /// The push port.
    Listen(SocketAddr, io::Error),
    /// The operator's console.
    Console(ConsoleError),
    /// The database has seen more starts than can be numbered.
    RunsUsedUp,
    /// The storage thread ended before it was asked to.
    StorageDied,
    /// A thread or a signal handler that the system refuses.
    System(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Listen(address, error) => {
                write!(
                    f,
                    "cannot listen on {address}: {error}; give another --listen"
                )
            }
            Self::Passed(error) => {
                write!(f, "cannot take what the service manager passes: {error}")
            }
            Self::Console(error) => error.fmt(f),
            Self::Upstream(error) => write!(f, "upstream.url: {error}"),
            Self::Broadcasts(error) => write!(f, "broadcasts.url: {error}"),
            Self::RunsUsedUp => f.write_str("database has been started too often; move it away"),
            Self::StorageDied => f.write_str("storage thread died; see the log above"),
            Self::System(error) => write!(f, "the system refuses what the program needs: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_is_set_up_as_the_configuration_says_and_by_default_as_the_storage_has_it() {
        let mut config = Config::default();
        let default = storage::Settings::default().with_full_reserve();
        assert_eq!(store_settings(&config), default);
        config.storage = config::Storage {
            page_bytes: 8192,
            cache_bytes: 1,
            checkpoint_pages: 2,
            journal_bytes_max: 3,
        };
        let settings = store_settings(&config);
        assert_eq!(settings.page_bytes, 8192);
        assert_eq!(settings.cache_bytes, 1);
        assert_eq!(settings.checkpoint_pages, 2);
        assert_eq!(settings.journal_bytes_max, 3);
        // The reserve follows the log.
        assert_eq!(settings.reserve_bytes, 2 * 8192 + (256 << 10));
    }
}
