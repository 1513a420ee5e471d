//! An emulated board: a QEMU with the disk that `cross/emulate` has made, its serial line, and the port
//! that the gateway on it is reached by.

mod console;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Folder, UserAgent};
use console::Console;

/// Longest that a board may take to boot, or to carry out one command: it is slow, and so may be the
/// machine that emulates it.
const BOOT_MAX: Duration = Duration::from_secs(900);
const COMMAND_MAX: Duration = Duration::from_secs(600);
/// How long one attempt to say hello may take while the board boots.
const HELLO_MAX: Duration = Duration::from_secs(3);
/// Size of a second disk: several times what ext4's own tables and a few messages take.
const DISK_BYTES: u64 = 64 << 20;
/// Where the gateway listens on the board, and where the board is in QEMU's network.
const PUSH: &str = "10.0.2.15:8090";
/// What the units of the package are given at most, before anybody looks for what went wrong.
const JOURNAL: &str = "journalctl --no-pager -b -n 40 -u edgepush.service -u edgepush.socket";

/// What is emulated.
struct Machine {
    name: &'static str,
    program: &'static str,
    options: &'static [&'static str],
    /// Where the kernel finds the disk, and what else it must be told.
    command_line: &'static str,
}

const MACHINES: [Machine; 4] = [
    Machine {
        name: "virt",
        program: "qemu-system-arm",
        options: &VIRT_ARMV7,
        command_line: VIRT,
    },
    Machine {
        name: "virt64",
        program: "qemu-system-aarch64",
        options: &VIRT_ARMV8,
        command_line: VIRT,
    },
    Machine {
        name: "raspi0",
        program: "qemu-system-arm",
        options: &["-M", "raspi0", "-device", "usb-net,netdev=net"],
        command_line: RASPI,
    },
    Machine {
        name: "raspi2b",
        program: "qemu-system-arm",
        options: &["-M", "raspi2b", "-device", "usb-net,netdev=net"],
        command_line: RASPI,
    },
];
const VIRT_ARMV7: [&str; 10] = virt("cortex-a7");
const VIRT_ARMV8: [&str; 10] = virt("cortex-a53");
/// By its label, because a second disk may take the first one's name.
const VIRT: &str = "root=LABEL=root";
/// QEMU has no such driver's device, and the kernel would wait for it.
const RASPI: &str = "root=/dev/mmcblk0 initcall_blacklist=bcm2835_power_driver_init";

/// A machine with little memory and nothing of a Pi but its processor.
const fn virt(cpu: &'static str) -> [&'static str; 10] {
    [
        "-M",
        "virt",
        "-cpu",
        cpu,
        "-m",
        "256",
        "-device",
        "virtio-blk-device,drive=card",
        "-device",
        "virtio-net-device,netdev=net",
    ]
}

/// A board with its memory card, on or off.
pub(super) struct Board {
    machine: &'static Machine,
    image: PathBuf,
    folder: Folder,
    pub(super) push: SocketAddr,
    /// Added to QEMU's options: what the clock says, for example.
    pub(super) options: Vec<String>,
    /// How the kernel mounts the card, and what else it is told.
    pub(super) root: &'static str,
    on: Option<On>,
}

struct On {
    qemu: Child,
    console: Console,
    since: Instant,
}

impl Board {
    /// With the package installed as its user does it, and a gateway that has been ready. That is done once
    /// for all boards of a run. Off.
    pub(super) fn installed() -> Self {
        let installed = "installed.img";
        if !PathBuf::from(given("EDGEPUSH_BOARD_IMAGE"))
            .join(installed)
            .exists()
        {
            let mut board = Self::with_card("disk.img");
            board.turn_on();
            board.wait_for_shell();
            // The package is armhf's, and Debian's name for the user land of an ARMv6 board is another.
            board.does("dpkg -i --force-architecture /root/edgepush.deb");
            board.wait_for_hello();
            board.turn_off();
            fs::rename(board.card(), board.image.join(installed)).unwrap();
        }
        Self::with_card(installed)
    }

    /// With a copy of a card.
    fn with_card(name: &str) -> Self {
        let machine = given("EDGEPUSH_BOARD");
        let machine = MACHINES.iter().find(|known| known.name == machine);
        let board = Self {
            machine: machine.expect("a board that is known"),
            image: given("EDGEPUSH_BOARD_IMAGE").into(),
            folder: Folder::new(),
            push: free_port(),
            options: Vec::new(),
            root: "rw",
            on: None,
        };
        // Most of a card is empty, and takes no room.
        let mut copy = Command::new("cp");
        copy.arg("--sparse=always")
            .args([board.image.join(name), board.card()]);
        assert!(copy.status().unwrap().success(), "{name}");
        board
    }

    fn card(&self) -> PathBuf {
        self.folder.path("card.img")
    }

    /// Adds a second disk, empty but for a file system with this label. QEMU's Pis have no room for one.
    pub(super) fn add_disk(&mut self, label: &str) -> bool {
        if !self.machine.name.starts_with("virt") {
            return false;
        }
        let disk = self.folder.path("disk.img");
        let file = fs::File::create(&disk).unwrap();
        file.set_len(DISK_BYTES).unwrap();
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-t", "ext4", "-L", label]).arg(&disk);
        assert!(make.status().unwrap().success(), "mke2fs");
        let drive = format!(
            "if=none,id=disk,format=raw,cache=writeback,file={}",
            disk.display()
        );
        let device = "virtio-blk-device,drive=disk".to_owned();
        let words = ["-drive".to_owned(), drive, "-device".to_owned(), device];
        self.options.extend(words);
        true
    }

    pub(super) fn turn_on(&mut self) {
        assert!(self.on.is_none(), "it is on");
        let serial = self.folder.path("serial");
        let _ = fs::remove_file(&serial);
        let since = Instant::now();
        // A test that dies takes its board with it.
        let qemu = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", self.machine.program])
            .args(self.machine.options)
            .args(self.arguments(&serial))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("QEMU is there: cross/emulate installs it");
        let console = Console::on(&serial);
        self.on = Some(On {
            qemu,
            console,
            since,
        });
    }

    /// QEMU's options that are alike for all.
    fn arguments(&self, serial: &Path) -> Vec<String> {
        let image = |name: &str| self.image.join(name).display().to_string();
        let interface = if self.machine.name.starts_with("virt") {
            "none"
        } else {
            "sd"
        };
        let card = self.card();
        let (card, serial, log) = (card.display(), serial.display(), self.log_file());
        let log = log.display();
        let (machine, root) = (self.machine.command_line, self.root);
        let command_line = format!("console=ttyAMA0 quiet {machine} {root}");
        let mut options = vec![
            ("-kernel", image("kernel")),
            ("-initrd", image("initrd")),
            ("-append", command_line),
            // What the board has synced is in the file, whatever happens to QEMU.
            (
                "-drive",
                format!("if={interface},id=card,format=raw,cache=writeback,file={card}"),
            ),
            // It reaches nobody, and nobody but this machine reaches it.
            (
                "-netdev",
                format!("user,id=net,restrict=on,hostfwd=tcp:{}-{PUSH}", self.push),
            ),
            (
                "-chardev",
                format!("socket,id=serial,server=on,wait=off,path={serial},logfile={log}"),
            ),
            ("-serial", "chardev:serial".to_owned()),
            ("-monitor", "none".to_owned()),
            ("-display", "none".to_owned()),
        ];
        if self.image.join("board.dtb").exists() {
            options.push(("-dtb", image("board.dtb")));
        }
        let words = options.into_iter();
        words
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }

    /// What has come from the serial line since it was turned on.
    fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path("serial.log")
    }

    /// Cuts the power: no goodbye, and what was not synced is gone.
    pub(super) fn cut(&mut self) {
        let mut on = self.on.take().expect("it is on");
        on.qemu.kill().unwrap();
        on.qemu.wait().unwrap();
    }

    /// Turns it off in good order.
    pub(super) fn turn_off(&mut self) {
        let mut on = self.on.take().expect("it is on");
        // There is no bus on this system, which `systemctl poweroff` asks first.
        on.console
            .tell("systemctl start --no-block poweroff.target");
        let start = Instant::now();
        // A Pi has no switch that a program could turn off: its kernel halts.
        let halted = |qemu: &mut Child| {
            qemu.try_wait().unwrap().is_some() || self.log().contains("reboot: ")
        };
        while !halted(&mut on.qemu) {
            assert!(start.elapsed() < COMMAND_MAX, "it does not turn off");
            std::thread::sleep(Duration::from_millis(200));
        }
        let _ = on.qemu.kill();
        on.qemu.wait().unwrap();
    }

    /// Waits until there is somebody who carries out commands.
    pub(super) fn wait_for_shell(&mut self) {
        let on = self.on.as_mut().expect("it is on");
        let is_there = on.console.wait_for_shell(BOOT_MAX);
        assert!(is_there, "no shell on the serial line:\n{}", self.log());
    }

    /// Waits until the gateway answers a hello; the time since the board was turned on.
    pub(super) fn wait_for_hello(&mut self) -> Duration {
        loop {
            if say_hello(self.push, None, HELLO_MAX).is_some() {
                return self.on_for();
            }
            if self.on_for() > BOOT_MAX {
                let journal = self.tell(JOURNAL).1;
                panic!("no hello was answered in {BOOT_MAX:?}:\n{journal}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn on_for(&self) -> Duration {
        self.on.as_ref().expect("it is on").since.elapsed()
    }

    /// Has the board's root carry out a command; its exit code, and what it has said.
    pub(super) fn tell(&mut self, command: &str) -> (i32, String) {
        let on = self.on.as_mut().expect("it is on");
        on.console.run(command, COMMAND_MAX)
    }

    /// The same, of a command that must succeed.
    pub(super) fn does(&mut self, command: &str) -> String {
        let (status, output) = self.tell(command);
        if status != 0 {
            let journal = self.tell(JOURNAL).1;
            panic!("{command} ended with {status}:\n{output}\n{journal}");
        }
        output
    }

    /// A property of a unit, as systemd knows it.
    pub(super) fn unit(&mut self, unit: &str, property: &str) -> String {
        self.does(&format!("systemctl show --value -p {property} {unit}"))
    }

    /// The same, of one that is a number.
    pub(super) fn unit_number(&mut self, property: &str) -> u64 {
        let value = self.unit("edgepush.service", property);
        value
            .parse()
            .unwrap_or_else(|_| panic!("{property} is {value:?}"))
    }

    /// The first number in what a command prints.
    pub(super) fn number(&mut self, command: &str) -> u64 {
        let output = self.does(command);
        let number = output.split_whitespace().find_map(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("{command} says {output:?}"))
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(mut on) = self.on.take() {
            let _ = on.qemu.kill();
            let _ = on.qemu.wait();
        }
    }
}

/// A user agent that has been answered, if none of that took longer than this.
pub(super) fn say_hello(
    push: SocketAddr,
    uaid: Option<&str>,
    patience: Duration,
) -> Option<UserAgent> {
    let stream = TcpStream::connect(push).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let mut agent = UserAgent::over(stream)?;
    agent.try_greet(uaid).then_some(agent)
}

/// A port of this machine that nobody listens on now.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// What `cross/emulate` has put into the environment.
fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run cross/emulate"))
}
