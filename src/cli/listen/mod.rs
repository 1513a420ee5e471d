//! `edgepush listen`: a user agent for people with a shell. Performs what [`agent`] decides.

mod agent;
#[cfg(test)]
mod agent_tests;
pub(super) mod arguments;
mod backoff;
mod handler;
mod inbox;
mod output;
mod state;

use std::future::pending;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use smol::future::or;
use uuid::Builder;

use self::agent::{Agent, Identity, Input, Output};
use self::arguments::Options;
use self::backoff::Backoff;
use self::handler::Handler;
use self::state::StateFile;
use crate::cli::text::one_line;
use crate::cli::{complain, private_key, refuse};
use crate::io::agent_socket::{AgentSocket, Received};
use crate::io::connect::Connector;
use crate::io::http_client::{ClientError, UpgradeError};
use crate::io::reactor::{self, Timer};
use crate::io::signals::StopSignals;
use crate::io::{clock, entropy};
use crate::model::ids::ChannelId;
use crate::protocol::encryption::{AuthSecret, ReceiverKeys};

/// How long a running command is waited for when this is to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until it is told to stop, or cannot go on.
pub(super) fn run(options: &Options) -> ExitCode {
    let (state, identity) = match StateFile::open(&options.state) {
        Err(error) => return fail(&error.to_string()),
        Ok((state, None)) => (state, new_identity(options)),
        Ok((state, Some((url, identity)))) => match check(options, &url, &identity) {
            Ok(()) => (state, identity),
            Err(message) => return refuse(format_args!("edgepush: {message}")),
        },
    };
    let stop = match StopSignals::catch() {
        Ok(stop) => stop,
        Err(error) => return fail(&format!("cannot catch signals: {error}")),
    };
    let listener = Listener {
        options,
        connector: Connector::new(options.ca.clone()),
        agent: Agent::new(identity),
        state,
        handler: Handler::default(),
        stop,
        done: false,
    };
    match reactor::block_on(listener.run()) {
        Ending::Done => ExitCode::SUCCESS,
        Ending::Failed(why) => fail(&why),
        // Whoever read it has gone, as in `edgepush listen … | head -1`.
        Ending::Unread => ExitCode::FAILURE,
    }
}

/// What stands there may come from the gateway.
fn fail(why: &str) -> ExitCode {
    super::fail(one_line(why))
}

/// To the person; what stands there may come from the gateway.
fn tell(what: &str) {
    complain(format_args!("edgepush: {}", one_line(what)));
}

fn new_identity(options: &Options) -> Identity {
    let keys = (!options.simplepush).then(|| ReceiverKeys {
        private: private_key(),
        auth: AuthSecret(entropy::random()),
    });
    Identity {
        uaid: None,
        channel: ChannelId::from_uuid(Builder::from_random_bytes(entropy::random()).into_uuid()),
        endpoint: None,
        keys,
        server_key: options.key.clone(),
    }
}

/// A state file is for one subscription: what is asked for must be that one.
fn check(options: &Options, url: &str, identity: &Identity) -> Result<(), String> {
    let path = options.state.display();
    let asked = options.url.to_string();
    if url != asked {
        return Err(format!(
            "state file {path} is for the gateway {}, not for {asked}; give another --state",
            one_line(url)
        ));
    }
    match (&identity.keys, options.simplepush) {
        (Some(_), true) => Err(format!(
            "state file {path} is not for --simplepush; leave that out, or give another --state"
        )),
        (None, false) => Err(format!(
            "state file {path} is for --simplepush; add that, or give another --state"
        )),
        (Some(_), false) | (None, true) => match &options.key {
            Some(_) if identity.server_key != options.key => Err(format!(
                "state file {path} is for another --key; give another --state"
            )),
            Some(_) | None => Ok(()),
        },
    }
}

struct Listener<'a> {
    options: &'a Options,
    connector: Connector,
    agent: Agent,
    state: StateFile,
    handler: Handler,
    stop: StopSignals,
    /// `--once`, and that one is handled.
    done: bool,
}

enum Ending {
    /// As it was asked to.
    Done,
    Failed(String),
    Unread,
}

/// What can happen while a websocket is open.
enum Happened {
    Stop,
    Handled(bool),
    Received(Received),
    TimePassed,
}

impl Listener<'_> {
    async fn run(mut self) -> Ending {
        let mut backoff = Backoff::default();
        loop {
            let (why, wait) = match self.connect().await {
                Ok(socket) => match self.exchange(socket, &mut backoff).await {
                    Ok(why) => {
                        backoff.disconnected(now());
                        self.agent.handle(now(), Input::Lost);
                        (format!("lost: {why}"), Duration::ZERO)
                    }
                    Err(ending) => return ending,
                },
                Err(Refusal::Again(why, wait)) => (why, wait),
                Err(Refusal::Final(ending)) => return ending,
            };
            let pause = backoff.next(entropy::random()).max(wait);
            tell(&format!("{why}; retrying in {:.1} s", pause.as_secs_f32()));
            if self.pause(pause).await {
                return Ending::Done;
            }
        }
    }

    async fn connect(&mut self) -> Result<AgentSocket, Refusal> {
        let opening = async {
            AgentSocket::open(&self.options.url, &self.connector)
                .await
                .map_err(Refusal::of)
        };
        let stopped = async {
            self.stop.next().await;
            Err(Refusal::Final(Ending::Done))
        };
        or(stopped, opening).await
    }

    /// Waits, for a running command as well; whether to stop.
    async fn pause(&mut self, pause: Duration) -> bool {
        let mut timer = Timer::after(pause);
        loop {
            let paused = async {
                (&mut timer).await;
                Happened::TimePassed
            };
            let stopped = async {
                self.stop.next().await;
                Happened::Stop
            };
            let handling = async { Happened::Handled(self.handler.end().await) };
            match or(stopped, or(handling, paused)).await {
                Happened::Stop => return true,
                Happened::Handled(well) => {
                    self.handled(well);
                    if self.done {
                        return true;
                    }
                }
                Happened::Received(_) | Happened::TimePassed => return false,
            }
        }
    }

    /// One connection, from hello to its end; why it ended, unless all is over.
    async fn exchange(
        &mut self,
        mut socket: AgentSocket,
        backoff: &mut Backoff,
    ) -> Result<String, Ending> {
        tell(&format!("connected to {}", self.options.url));
        self.agent.handle(now(), Input::Connected);
        loop {
            match self.perform(&mut socket).await {
                Ok(()) => {}
                Err(Stop::HangUp(why)) => {
                    socket.close().await;
                    return Ok(why);
                }
                Err(Stop::End(ending)) => {
                    socket.close().await;
                    return Err(ending);
                }
            }
            if self.agent.is_ready() {
                backoff.connected(now());
            }
            match self.happening(&mut socket).await {
                Happened::Stop => {
                    self.wind_up(socket).await;
                    return Err(Ending::Done);
                }
                Happened::Handled(well) => self.handled(well),
                Happened::TimePassed => self.agent.handle(now(), Input::TimePassed),
                Happened::Received(Received::Text(text)) => {
                    self.agent.handle(now(), Input::Text(&text));
                }
                Happened::Received(Received::Alive | Received::Pong) => {
                    self.agent.handle(now(), Input::Alive)
                }
                Happened::Received(Received::Garbage) => self.agent.handle(now(), Input::Garbage),
                Happened::Received(Received::End(why)) => return Ok(why),
            }
        }
    }

    async fn happening(&mut self, socket: &mut AgentSocket) -> Happened {
        let deadline = self.agent.next_deadline();
        let full = self.agent.is_full();
        let stopped = async {
            self.stop.next().await;
            Happened::Stop
        };
        let handling = async { Happened::Handled(self.handler.end().await) };
        let receiving = async {
            if full {
                // The gateway keeps the rest, until the commands have caught up.
                return pending().await;
            }
            Happened::Received(socket.receive().await)
        };
        let timing = async {
            match deadline {
                // Silence means nothing while nothing is read.
                Some(deadline) if !full => Timer::at(deadline).await,
                Some(_) | None => pending().await,
            };
            Happened::TimePassed
        };
        or(stopped, or(handling, or(receiving, timing))).await
    }

    /// Does what the agent has decided.
    async fn perform(&mut self, socket: &mut AgentSocket) -> Result<(), Stop> {
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Send(text) => {
                    if !socket.send(text).await {
                        return Err(Stop::HangUp("cannot send".to_owned()));
                    }
                }
                Output::Keep => {
                    let kept = self.state.keep(&self.options.url, self.agent.identity());
                    kept.map_err(|error| Stop::End(Ending::Failed(error.to_string())))?;
                }
                Output::Subscribed => {
                    print(&output::subscribed(
                        self.agent.identity(),
                        self.options.form,
                    ))?;
                }
                Output::Handle(_) if self.done => {}
                Output::Handle(event) => {
                    print(&output::event(&event, self.options.form))?;
                    match &self.options.exec {
                        None => self.handled(true),
                        Some(command) => {
                            let endpoint = self.agent.identity().endpoint.as_deref();
                            self.handler.start(command, event, endpoint);
                        }
                    }
                }
                Output::Tell(text) => tell(&text),
                Output::HangUp(why) => return Err(Stop::HangUp(why)),
                Output::GiveUp(why) => return Err(Stop::End(Ending::Failed(why))),
            }
        }
        if self.done {
            return Err(Stop::End(Ending::Done));
        }
        Ok(())
    }

    fn handled(&mut self, well: bool) {
        self.done = self.options.once;
        self.agent.handle(now(), Input::Handled { well });
    }

    /// Ends in order: a command that is running may still come to its end and be acked.
    async fn wind_up(&mut self, mut socket: AgentSocket) {
        if self.handler.is_running() {
            let ended = async { Some(self.handler.end().await) };
            let late = async {
                or(
                    async {
                        Timer::after(STOP_TIMEOUT).await;
                    },
                    async {
                        self.stop.next().await;
                    },
                )
                .await;
                None
            };
            // One that failed was perhaps stopped with us, by the same Ctrl-C: its event comes again.
            if or(ended, late).await == Some(true) {
                self.agent.handle(now(), Input::Handled { well: true });
                while let Some(Output::Send(text)) = self.agent.poll_output() {
                    if !socket.send(text).await {
                        return;
                    }
                }
            }
        }
        socket.close().await;
    }
}

/// Why a connection is ended from here.
enum Stop {
    HangUp(String),
    End(Ending),
}

/// Why there is no connection.
enum Refusal {
    /// Try again, but not before this long.
    Again(String, Duration),
    Final(Ending),
}

impl Refusal {
    fn of(error: UpgradeError) -> Self {
        match error {
            UpgradeError::Refused(answer) => {
                let why = answer.refusal("the gateway");
                if !answer.may_pass() {
                    return Self::Final(Ending::Failed(why));
                }
                Self::Again(why, answer.asked_for())
            }
            UpgradeError::Client(ClientError::Connect(error)) if error.is_lasting() => {
                Self::Final(Ending::Failed(error.to_string()))
            }
            UpgradeError::Client(error) => Self::Again(error.to_string(), Duration::ZERO),
        }
    }
}

fn now() -> Instant {
    clock::monotonic()
}

/// Writes lines to standard output, at once. A reader that is slow holds everything up: what it
/// has not read is not acked.
fn print(lines: &str) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    let written = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    written.map_err(|_| Stop::End(Ending::Unread))
}
