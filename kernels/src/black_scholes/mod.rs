//! Prices European options on a stock without dividends by the formula of Black and Scholes.
//!
//! Shapes    option numbers [start, start + count) -> rows (call, put) of f4, in the order of the numbers; tallies options, calls, puts:
//!           the sums of the prices in units of 1/65536, each price rounded on its own. Option i has the spot price, strike price and years
//!           that the first three words of Philox4x32-10 make of the counter i and the key `seed`, evenly between their limits
//! Limits    start + count <= 2^64; 2^30 options in one task; prices 0.01 ..= 10000, years 0.05 ..= 100, volatility 0.05 ..= 2
//! Agreement bounded: either twin is within 2^-20 * (spot + strike) of the exact price, so the twins are within 2^-19 * (spot + strike) of
//!           each other. Both compute in f32. Of the bound 0.63 * 2^-23 comes from the polynomial for the normal distribution, the rest
//!           from roundings; an error in d1 cancels to first order, because spot * phi(d1) = strike * exp(-rate * years) * phi(d2). The CPU
//!           twin uses only operations that IEEE 754 fixes to the bit, in one order: it gives the same bytes on every processor
//! Errors    a lower limit above the upper one; a range that leaves the 64-bit numbers; a task of more than 2^30 options
//! Source    F. Black, M. Scholes, The pricing of options and corporate liabilities (1973); normal distribution: Abramowitz and Stegun,
//!           Handbook of mathematical functions, 26.2.17; exp and log: S. L. Moshier, Cephes (single precision)

mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gpu::{BATCH_BYTES, Gpu};
use crate::params::Resolved;
use crate::stack_rows::Slices;

pub struct BlackScholes;

const MOST_OPTIONS: u64 = 1 << 30;
/// Prices are tallied in this many parts.
const UNIT: f32 = 65_536.0;

const fn price(name: &'static str, default: &'static str, doc: &'static str) -> ParamSpec {
    ParamSpec { name, kind: ParamType::F64 { min: 0.01, max: 10_000.0 }, default: Some(default), doc }
}

const fn years(name: &'static str, default: &'static str, doc: &'static str) -> ParamSpec {
    ParamSpec { name, kind: ParamType::F64 { min: 0.05, max: 100.0 }, default: Some(default), doc }
}

static DESCRIPTOR: Descriptor = Descriptor {
    name: "black_scholes",
    version: 1,
    kind: Kind::Map,
    summary: "Prices random European options; one element of the index is one option",
    accepts: Accepts::Index,
    params: &[
        ParamSpec {
            name: "seed",
            kind: ParamType::U64 { min: 0, max: u64::MAX },
            default: Some("0"),
            doc: "key of the random numbers; another seed, other options",
        },
        price("spot_low", "5", "least price of the stock today"),
        price("spot_high", "30", "greatest price of the stock today"),
        price("strike_low", "1", "least price that the option fixes"),
        price("strike_high", "100", "greatest price that the option fixes"),
        years("years_low", "0.25", "shortest time until the option ends"),
        years("years_high", "10", "longest time until the option ends"),
        ParamSpec {
            name: "rate",
            kind: ParamType::F64 { min: 0.0, max: 1.0 },
            default: Some("0.02"),
            doc: "interest without risk, per year",
        },
        ParamSpec {
            name: "volatility",
            kind: ParamType::F64 { min: 0.05, max: 2.0 },
            default: Some("0.3"),
            doc: "standard deviation of the stock's yearly return",
        },
        ParamSpec {
            name: "prices",
            kind: ParamType::Choice(&["yes", "no"]),
            default: Some("yes"),
            doc: "write the price of every option; no: tallies only",
        },
    ],
    tallies: &["options", "calls", "puts"],
    shuffles: true,
    formats: &[],
    reduces_with: &["stack_rows"],
    reduce_defaults: &[],
    gpu: true,
    agreement: Agreement::Bounded("each price is within 2^-20 * (spot + strike) of the exact one on either twin"),
};

impl Kernel for BlackScholes {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn standard(&self) -> Option<Standard> {
        Some(Standard { params: &[], input: StandardInput::Range { count: 1 << 24, tasks: 64 } })
    }

    fn gpu_memory(&self, params: &Params, _input: Option<&ListedInput>) -> Option<GpuNeed> {
        let params = Resolved::new(&DESCRIPTOR, params).ok()?;
        Some(gpu::need(BATCH_BYTES, params.text("prices") == "yes"))
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        let params = Resolved::new(&DESCRIPTOR, &stage.params)?;
        let market = Market::new(&params)?;
        Ok(Box::new(PreparedBlackScholes { market, prices: params.text("prices") == "yes", slices: Slices::new(stage) }))
    }

    fn present_tallies(&self, _params: &Params, tallies: &[u128]) -> Vec<(String, String)> {
        match tallies {
            &[options, calls, puts] if options > 0 => {
                let mean = |sum: u128| format!("{:.4}", sum as f64 / f64::from(UNIT) / options as f64);
                vec![("mean call".into(), mean(calls)), ("mean put".into(), mean(puts))]
            }
            _ => Vec::new(),
        }
    }
}

/// `low + u * span` for a random `u` in [0, 1).
#[derive(Clone, Copy, Debug)]
struct Between {
    low: f32,
    span: f32,
}

/// What all options share, rounded to f32 once, here.
#[derive(Clone, Copy, Debug)]
struct Market {
    seed: u64,
    spot: Between,
    strike: Between,
    years: Between,
    rate: f32,
    /// rate + volatility^2 / 2
    drift: f32,
    volatility: f32,
}

impl Market {
    fn new(params: &Resolved) -> Result<Market, KernelError> {
        let between = |low: &'static str, high: &'static str| match (params.f64(low), params.f64(high)) {
            (from, to) if from <= to => Ok(Between { low: from as f32, span: (to - from) as f32 }),
            (from, to) => {
                let text = format!("kernel 'black_scholes': parameter '{low}' = {from} must not be above '{high}' = {to}");
                Err(KernelError::Param(text))
            }
        };
        let (rate, volatility) = (params.f64("rate"), params.f64("volatility"));
        Ok(Market {
            seed: params.u64("seed"),
            spot: between("spot_low", "spot_high")?,
            strike: between("strike_low", "strike_high")?,
            years: between("years_low", "years_high")?,
            rate: rate as f32,
            drift: (rate + volatility * volatility / 2.0) as f32,
            volatility: volatility as f32,
        })
    }
}

struct PreparedBlackScholes {
    market: Market,
    /// Whether the prices are wanted, not only their sums.
    prices: bool,
    slices: Slices,
}

/// What one task made: sums in units of 1 / [`UNIT`], and (call, put) of each option if they are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
struct Priced {
    calls: u64,
    puts: u64,
    rows: Vec<f32>,
}

impl Prepared for PreparedBlackScholes {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let (start, count) = range(task)?;
        Ok(self.output(task.number, count, &cpu::price(&self.market, start, count, self.prices)))
    }

    fn run_gpu(&self, gpu: &Gpu, tasks: &[Task<'_>]) -> Result<Vec<TaskOutput>, KernelError> {
        let ranges = tasks.iter().map(range).collect::<Result<Vec<_>, _>>()?;
        let priced = gpu::price(gpu, &self.market, &ranges, self.prices)?;
        Ok(tasks.iter().zip(&ranges).zip(&priced).map(|((task, (_, count)), priced)| self.output(task.number, *count, priced)).collect())
    }
}

impl PreparedBlackScholes {
    fn output(&self, task: u64, options: u64, priced: &Priced) -> TaskOutput {
        let tallies = vec![options, priced.calls, priced.puts];
        TaskOutput { tallies, blocks: self.slices.blocks(task, 2, &priced.rows), part: None, records: Records { read: 0, made: options } }
    }
}

fn range(task: &Task<'_>) -> Result<(u64, u64), KernelError> {
    let Input::Index { start, count } = task.input else {
        return Err(KernelError::Input("black_scholes reads an index range".into()));
    };
    if count > 0 && start.checked_add(count - 1).is_none() {
        return Err(KernelError::Input(format!("{count} options from number {start} on leave the 64-bit numbers")));
    }
    if count > MOST_OPTIONS {
        return Err(KernelError::Input(format!("{count} options in one task; at most {MOST_OPTIONS}: cut the range into more tasks")));
    }
    Ok((start, count))
}
