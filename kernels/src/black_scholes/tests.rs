use super::*;
use crate::philox::philox;
use crate::side::f4;
use crate::testing::{check_memory, params, prepare, random, reduce, with_gpus, with_gpus_of_batch};

fn task(number: u64, start: u64, count: u64) -> Task<'static> {
    Task { number, input: Input::Index { start, count } }
}

/// The prices that a task wrote, read back through its reduce.
fn prices(output: &TaskOutput) -> Vec<[f32; 2]> {
    let part = reduce("stack_rows", &[], "npy", 1, &[&output.blocks[0]]).unwrap();
    f4(&part.bytes[128..]).as_chunks::<2>().0.to_vec()
}

fn market(pairs: &[(&str, f64)]) -> Market {
    let of = |name: &str, default: f64| pairs.iter().find(|(given, _)| *given == name).map_or(default, |(_, value)| *value);
    let (rate, volatility) = (of("rate", 0.02), of("volatility", 0.3));
    let between = Between { low: 1.0, span: 1.0 };
    let drift = (rate + volatility * volatility / 2.0) as f32;
    Market { seed: 0, spot: between, strike: between, years: between, rate: rate as f32, drift, volatility: volatility as f32 }
}

/// The formula in f64, with the distribution integrated by Simpson's rule: nothing here is shared with the twins.
fn exact(market: &Market, spot: f32, strike: f32, years: f32) -> [f64; 2] {
    let (spot, strike, years) = (f64::from(spot), f64::from(strike), f64::from(years));
    let (rate, volatility) = (f64::from(market.rate), f64::from(market.volatility));
    let spread = volatility * years.sqrt();
    let d1 = ((spot / strike).ln() + (rate + volatility * volatility / 2.0) * years) / spread;
    let d2 = d1 - spread;
    let owed = strike * (-rate * years).exp();
    [spot * distribution(d1) - owed * distribution(d2), owed * distribution(-d2) - spot * distribution(-d1)]
}

fn distribution(d: f64) -> f64 {
    let size = d.abs().min(9.0);
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let (steps, width) = (200, size / 200.0);
    let weight = |step: u32| {
        if step == 0 || step == steps {
            1.0
        } else if step % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    let area: f64 = (0..=steps).map(|step| weight(step) * density(f64::from(step) * width)).sum::<f64>() * width / 3.0;
    if d > 0.0 { 0.5 + area } else { 0.5 - area }
}

fn bound(spot: f32, strike: f32) -> f64 {
    (f64::from(spot) + f64::from(strike)) / f64::from(1 << 20)
}

/// John C. Hull, Options, Futures and Other Derivatives, example of the chapter on the Black-Scholes-Merton model: 4.76 and 0.81.
#[test]
fn the_textbook_example_comes_out() {
    let (call, put) = cpu::formula(&market(&[("rate", 0.1), ("volatility", 0.2)]), 42.0, 40.0, 0.5);
    assert_eq!((format!("{call:.2}"), format!("{put:.2}")), ("4.76".into(), "0.81".into()));
}

#[test]
fn the_cpu_twin_keeps_its_bound_in_every_corner() {
    let mut random = random("the_cpu_twin_keeps_its_bound_in_every_corner");
    let mut worst = 0.0f64;
    for volatility in [0.05, 0.3, 2.0] {
        for rate in [0.0, 0.02, 1.0] {
            let market = market(&[("rate", rate), ("volatility", volatility)]);
            for number in 0..4000 {
                let mut within = |low: f64, high: f64| (low * (high / low).powf(random.below(1 << 30) as f64 / f64::from(1 << 30))) as f32;
                let (spot, years) = (within(0.01, 10_000.0), within(0.05, 100.0));
                // Half of them near the money, where errors are largest.
                let strike = if number % 2 == 0 { within(0.01, 10_000.0) } else { spot * within(0.8, 1.25) };
                let (call, put) = cpu::formula(&market, spot, strike, years);
                for (price, exact) in [call, put].into_iter().zip(exact(&market, spot, strike, years)) {
                    let off = (f64::from(price) - exact).abs() / bound(spot, strike);
                    assert!(off <= 1.0, "spot {spot} strike {strike} years {years} {market:?}: {price}, exactly {exact}");
                    worst = worst.max(off);
                }
            }
        }
    }
    println!("largest error: {worst:.3} of the bound");
}

/// Bytes that every processor gives: a change of the order of operations, or a fused one, would show.
#[test]
fn the_cpu_twin_gives_the_bytes_that_it_always_gave() {
    let output = prepare("black_scholes", &[("seed", "7")], 1).unwrap().run_cpu(&task(0, 1 << 40, 10_000)).unwrap();
    let hash = crate::key::hash(&output.blocks[0]);
    assert_eq!((output.tallies, hash), (GOLDEN_TALLIES.to_vec(), GOLDEN_HASH), "{hash:#018x}");
}

const GOLDEN_TALLIES: [u64; 3] = [10_000, 1_984_668_722, 20_244_451_825];
const GOLDEN_HASH: u64 = 0xe691_118a_11ba_6e67;

#[test]
fn wider_instructions_give_the_same_bytes() {
    let market = Market::new(&Resolved::new(&DESCRIPTOR, &Params::new()).unwrap()).unwrap();
    assert!(cpu::price(&market, 3, 20_000, true) == cpu::price_chunks(&market, 3, 20_000, true));
}

#[test]
fn splitting_the_range_changes_nothing() {
    let kernel = prepare("black_scholes", &[], 1).unwrap();
    let run = |start, count| prices(&kernel.run_cpu(&task(0, start, count)).unwrap());
    let mut both = run(100, 300);
    both.extend(run(400, 457));
    assert_eq!(both, run(100, 757));
}

#[test]
fn sums_are_those_of_the_prices_and_prices_can_be_left_out() {
    let output = prepare("black_scholes", &[], 1).unwrap().run_cpu(&task(0, 5, 1000)).unwrap();
    let sum = |column: usize| prices(&output).iter().map(|price| (f64::from(price[column]) * 65_536.0).round() as i64).sum::<i64>();
    assert_eq!(output.tallies[0], 1000);
    // A price that lies between two units may be rounded either way.
    assert!((output.tallies[1] as i64 - sum(0)).abs() <= 1000 && (output.tallies[2] as i64 - sum(1)).abs() <= 1000);
    let alone = prepare("black_scholes", &[("prices", "no")], 1).unwrap().run_cpu(&task(0, 5, 1000)).unwrap();
    assert_eq!((prices(&alone).len(), &alone.tallies), (0, &output.tallies));
}

#[test]
fn the_gpu_twin_keeps_its_bound() {
    let mut random = random("the_gpu_twin_keeps_its_bound");
    for given in [
        &[][..],
        &[("spot_low", "0.01"), ("spot_high", "10000"), ("strike_low", "0.01"), ("strike_high", "10000")],
        &[("years_low", "0.05"), ("years_high", "0.06"), ("volatility", "0.05"), ("strike_low", "5"), ("strike_high", "30")],
        &[("years_high", "100"), ("volatility", "2"), ("rate", "1")],
    ] {
        let kernel = prepare("black_scholes", given, 1).unwrap();
        let market = Market::new(&Resolved::new(&DESCRIPTOR, &params(given)).unwrap()).unwrap();
        let mut tasks: Vec<_> = [0, 1, 255, 256, 257, 1009, 16_383, 16_384, 16_385, 50_021]
            .iter()
            .enumerate()
            .map(|(number, count)| task(number as u64, random.next() >> 1, *count))
            .collect();
        tasks.push(task(10, (1 << 32) - 100, 300));
        tasks.push(task(11, u64::MAX - 300, 301));
        let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
        with_gpus(|gpu| {
            let outputs = kernel.run_gpu(gpu, &tasks).unwrap();
            assert_eq!(outputs.len(), expected.len());
            for ((task, output), expected) in tasks.iter().zip(&outputs).zip(&expected) {
                let (start, count) = range(task).unwrap();
                let (ours, theirs) = (prices(output), prices(expected));
                assert_eq!((ours.len() as u64, output.tallies[0]), (count, count));
                let mut room = [0.0; 2];
                for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                    let [spot, strike, years] = drawn(&market, start + index as u64);
                    let bound = bound(spot, strike);
                    // The integral takes its time: the longer tasks are compared with the other twin alone.
                    let exact = if count < 2000 { exact(&market, spot, strike, years) } else { theirs.map(f64::from) };
                    let twins = if count < 2000 { 1.0 } else { 2.0 };
                    for (at, price) in ours.iter().enumerate() {
                        let off = (f64::from(*price) - exact[at]).abs();
                        assert!(off <= twins * bound, "spot {spot} strike {strike} years {years} {market:?}: {price}, not {}", exact[at]);
                        room[at] += 2.0 * bound * 65_536.0 + 1.0;
                    }
                }
                assert!((0..2).all(|at| output.tallies[1 + at].abs_diff(expected.tallies[1 + at]) as f64 <= room[at]));
            }
            assert_eq!(kernel.run_gpu(gpu, &[]).unwrap(), []);
        });
    }
}

/// Spot, strike and years of an option.
fn drawn(market: &Market, number: u64) -> [f32; 3] {
    let words = philox([number as u32, (number >> 32) as u32, 0, 0], [market.seed as u32, (market.seed >> 32) as u32]);
    [cpu::pick(market.spot, words[0]), cpu::pick(market.strike, words[1]), cpu::pick(market.years, words[2])]
}

#[test]
fn sums_of_the_dearest_options_do_not_overflow_on_the_gpu() {
    let dear = [("spot_low", "10000"), ("spot_high", "10000"), ("strike_low", "0.01"), ("strike_high", "0.01"), ("prices", "no")];
    let kernel = prepare("black_scholes", &dear, 1).unwrap();
    let tasks = [task(0, 0, 100_000)];
    let expected = kernel.run_cpu(&tasks[0]).unwrap();
    assert!(expected.tallies[1] > 9_999 * 65_536 * 100_000);
    with_gpus(|gpu| {
        let output = kernel.run_gpu(gpu, &tasks).unwrap().swap_remove(0);
        assert!(output.tallies[1].abs_diff(expected.tallies[1]) < expected.tallies[1] >> 18);
    });
}

#[test]
fn limits_the_wrong_way_round_and_ranges_too_long_are_errors() {
    let refused = prepare("black_scholes", &[("spot_low", "40")], 1).map(drop).unwrap_err();
    assert_eq!(refused.to_string(), "kernel 'black_scholes': parameter 'spot_low' = 40 must not be above 'spot_high' = 30");
    let kernel = prepare("black_scholes", &[], 1).unwrap();
    assert!(matches!(kernel.run_cpu(&task(0, u64::MAX, 2)), Err(KernelError::Input(_))));
    assert!(kernel.run_cpu(&task(0, 0, MOST_OPTIONS + 1)).unwrap_err().to_string().contains("cut the range into more tasks"));
}

#[test]
fn the_mean_prices_are_presented() {
    let lines = BlackScholes.present_tallies(&Params::new(), &[2, 65_536 * 3, 65_536]);
    assert_eq!(lines, [("mean call".to_string(), "1.5000".to_string()), ("mean put".to_string(), "0.5000".to_string())]);
    assert_eq!(BlackScholes.present_tallies(&Params::new(), &[0, 0, 0]), []);
}

#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    const BATCH: u64 = 1 << 20;
    for (prices, tasks, options) in [("yes", 12, 50_000), ("yes", 3, 20_000), ("no", 2000, 10)] {
        let kernel = prepare("black_scholes", &[("prices", prices)], 1).unwrap();
        let ranges: Vec<_> =
            (0..tasks).map(|task| Task { number: task, input: Input::Index { start: task * options, count: options } }).collect();
        with_gpus_of_batch(BATCH, |gpu| {
            let need = gpu::need(BATCH, prices == "yes");
            check_memory(gpu, need, tasks, tasks * options, || drop(kernel.run_gpu(gpu, &ranges).unwrap()));
        });
    }
}
