//! memory_leak_simulator in Rust: options, output and rules as in native/simulator.c.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LIMIT_BYTES: f64 = 2147483648.0;
static STOPPING: AtomicBool = AtomicBool::new(false);

extern "C" {
    fn prctl(option: i32, value: u64) -> i32;
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn clock() -> i64; // microseconds of CPU time: CLOCKS_PER_SEC is 1,000,000 by POSIX
}

extern "C" fn ask_to_stop(_: i32) {
    STOPPING.store(true, Ordering::Relaxed);
}

fn fail(words: &str) -> ! {
    eprintln!("memory_leak_simulator: {words}");
    std::process::exit(2);
}

#[allow(dead_code)] // the name is there to take memory
struct Peer {
    other: RefCell<Option<Rc<Peer>>>,
    name: String,
}

struct Simulation {
    started: Instant,
    rate: f64,
    state: u64,
    leaked_bytes: u64,
    leaked_blocks: u64,
    work: u64,
    requests: Vec<Option<Vec<u8>>>,
    by_key: HashMap<u64, String>,
    kept: Vec<Vec<u8>>,
    queue: VecDeque<Vec<u8>>,
    n_put: f64,
}

impl Simulation {
    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn draw(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545f4914f6cdd1d)
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.draw() >> 16) as usize % (high - low + 1)
    }

    fn owed(&self) -> f64 {
        self.rate * self.elapsed() - self.leaked_bytes as f64
    }

    fn leaked(&mut self, n: usize) {
        self.leaked_bytes += n as u64;
        self.leaked_blocks += 1;
        if self.leaked_bytes as f64 > LIMIT_BYTES {
            fail("would hold more than 2 GB; stopped");
        }
    }

    fn churn(&mut self, n: usize) {
        for _ in 0..n {
            let slot = self.between(0, 255);
            let size = self.between(16, 2000);
            self.requests[slot] = Some(vec![1; size]);
        }
        self.work += n as u64;
    }
}

#[inline(never)]
fn site_box_leak(sim: &mut Simulation) {
    let size = sim.between(100, 3000);
    std::hint::black_box(Box::leak(vec![1u8; size].into_boxed_slice()));
    sim.leaked(size);
}

#[inline(never)]
fn site_rc_cycle(sim: &mut Simulation) {
    let size = sim.between(50, 900);
    let left = Rc::new(Peer { other: RefCell::new(None), name: "l".repeat(size) });
    let right = Rc::new(Peer { other: RefCell::new(None), name: "r".repeat(size) });
    *left.other.borrow_mut() = Some(right.clone());
    *right.other.borrow_mut() = Some(left.clone());
    sim.leaked(2 * (size + 56));
}

#[inline(never)]
fn site_rust_map(sim: &mut Simulation) {
    let size = sim.between(50, 900);
    let key = sim.draw();
    sim.by_key.insert(key, "m".repeat(size));
    sim.leaked(size + 32);
}

#[inline(never)]
fn site_rust_vec(sim: &mut Simulation) {
    let size = sim.between(50, 900);
    sim.kept.push(vec![1; size]);
    sim.leaked(size + 24);
}

fn paced(sim: &mut Simulation, site: fn(&mut Simulation)) {
    while sim.owed() > 3100.0 {
        site(sim);
        sim.work += 1;
    }
}

/// Full after 20 s, then the oldest goes for the newest.
#[inline(never)]
fn step_cache(sim: &mut Simulation) {
    while sim.n_put < sim.elapsed() * 400.0 {
        let size = sim.between(1000, 4000);
        sim.queue.push_back(vec![1; size]);
        if sim.queue.len() > 8000 {
            sim.queue.pop_front();
        }
        sim.n_put += 1.0;
    }
}

fn step_of(kind: &str) -> Option<(bool, fn(&mut Simulation))> {
    Some(match kind {
        "rust_box_leak" => (true, |sim| paced(sim, site_box_leak)),
        "rust_rc_cycle" => (true, |sim| paced(sim, site_rc_cycle)),
        "rust_map" => (true, |sim| paced(sim, site_rust_map)),
        "rust_vec" => (true, |sim| paced(sim, site_rust_vec)),
        "rust_steady" => (false, |_| ()),
        "rust_cache20" => (false, step_cache),
        _ => return None,
    })
}

fn rate_of(text: &str) -> Option<f64> {
    let (amount, per) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match per.strip_suffix("min") {
        Some(minutes) => 60.0 * minutes.parse::<f64>().ok()?,
        None if per == "s" => 1.0,
        None => return None,
    };
    for (unit, bytes) in [("GB", 1e9), ("MB", 1e6), ("KB", 1e3), ("kB", 1e3), ("B", 1.0), ("", 1.0)] {
        if let Some(Ok(number)) = amount.strip_suffix(unit).map(str::parse::<f64>) {
            return Some(number * bytes / seconds);
        }
    }
    None
}

fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn main() {
    let (mut kind, mut rate, mut duration, mut seed, mut churn_per_s) = (String::new(), 1e6, 60.0, 1u64, 3000.0);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for pair in arguments.chunks(2) {
        let value = pair.get(1).map(String::as_str).unwrap_or_else(|| fail("an option wants a value"));
        let number = || value.parse::<f64>().unwrap_or_else(|_| fail("an option wants a number"));
        match pair[0].as_str() {
            "--kind" => kind = value.to_string(),
            "--leak-rate" => rate = rate_of(value).unwrap_or_else(|| fail("--leak-rate wants a number and a unit, like 10MB/s or 5MB/5min")),
            "--duration" => duration = number(),
            "--seed" => seed = number() as u64,
            "--churn" => churn_per_s = number(),
            _ => fail("options: --kind K --leak-rate 10MB/s --duration S --seed N --churn REQUESTS_PER_S"),
        }
    }
    let (leaks, step) = step_of(&kind).unwrap_or_else(|| fail("this program has no such --kind"));
    if leaks && rate * duration > LIMIT_BYTES {
        fail("this rate would leak more than 2 GB in this duration");
    }
    unsafe {
        prctl(1, 9); // PR_SET_PDEATHSIG, SIGKILL
        signal(15, ask_to_stop);
        signal(2, ask_to_stop);
    }
    let mut sim = Simulation {
        started: Instant::now(),
        rate,
        state: (seed + 1).wrapping_mul(0x9e3779b97f4a7c15),
        leaked_bytes: 0,
        leaked_blocks: 0,
        work: 0,
        requests: vec![None; 256],
        by_key: HashMap::new(),
        kept: Vec::new(),
        queue: VecDeque::new(),
        n_put: 0.0,
    };
    println!("{{\"ready\": true, \"pid\": {}}}", std::process::id());
    let mut done = 0.0;
    while !STOPPING.load(Ordering::Relaxed) && sim.elapsed() < duration {
        let due = sim.elapsed() * churn_per_s - done;
        done = sim.elapsed() * churn_per_s;
        sim.churn(f64::min(due, churn_per_s / 10.0) as usize);
        step(&mut sim);
        std::thread::sleep(Duration::from_millis(10));
    }
    println!(
        "{{\"kind\": \"{}\", \"leaks\": {}, \"leaked_bytes\": {}, \"leaked_blocks\": {}, \"held_bytes\": 0, \
         \"work\": {}, \"cpu_s\": {:.3}, \"wall_s\": {:.3}, \"anon_bytes\": {}}}",
        kind, leaks, sim.leaked_bytes, sim.leaked_blocks, sim.work,
        unsafe { clock() } as f64 / 1e6, sim.elapsed(), anonymous_bytes()
    );
}
