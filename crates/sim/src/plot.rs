//! A report as a picture, SVG or PNG: delays beside the bound, continuity over time with the events marked, depth,
//! copies by class of peer.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::error::SimError;
use crate::report::{BIN_US, Report};

/// Pixels.
const SIZE: (u32, u32) = (1280, 900);
pub(crate) const INK: RGBColor = RGBColor(40, 44, 52);
pub(crate) const RIVER: RGBColor = RGBColor(20, 110, 180);
pub(crate) const BANK: RGBColor = RGBColor(210, 120, 30);
const REED: RGBColor = RGBColor(90, 150, 70);
pub(crate) const FONT: &str = "sans-serif";

type Failure = Box<dyn std::error::Error>;
type Area<'a, B> = DrawingArea<B, Shift>;

/// Writes `report` to `file`, whose name ends in `.svg` or `.png`.
///
/// # Errors
/// [`SimError::Plot`] when the file cannot be written or has another ending.
pub fn write(report: &Report, file: &Path) -> Result<(), SimError> {
    to_file(file, SIZE, |root| draw(report, root), |root| draw(report, root))
}

/// Draws into `file`, by its ending.
pub(crate) fn to_file(
    file: &Path,
    size: (u32, u32),
    svg: impl FnOnce(&Area<'_, SVGBackend<'_>>) -> Result<(), Failure>,
    png: impl FnOnce(&Area<'_, BitMapBackend<'_>>) -> Result<(), Failure>,
) -> Result<(), SimError> {
    let failed = |what: &str| SimError::Plot(file.display().to_string(), what.to_owned());
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    // The font comes with the program: a plot looks the same everywhere.
    register_font(FONT, FontStyle::Normal, notosans::REGULAR_TTF)
        .map_err(|_| failed("its font is unreadable"))?;
    let drawn = match ending {
        "svg" => svg(&SVGBackend::new(file, size).into_drawing_area()),
        "png" => png(&BitMapBackend::new(file, size).into_drawing_area()),
        _ => return Err(failed("a name that ends in .svg or .png is expected")),
    };
    drawn.map_err(|error| failed(&error.to_string()))
}

fn draw<B: DrawingBackend>(report: &Report, root: &Area<'_, B>) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    let title = format!(
        "{} viewers, {:.1} Mbit/s, {} s measured, seed {}",
        report.peers,
        report.rate_bps as f64 / 1e6,
        report.duration_ms / 1000,
        report.seed
    );
    let root = root.titled(&title, (FONT, 24).into_font().color(&INK))?;
    let panels = root.split_evenly((2, 2));
    delays(report, &panels[0])?;
    continuity(report, &panels[1])?;
    let depth: Vec<(String, f64)> =
        report.depth.iter().map(|(depth, share)| (depth.to_string(), share * 100.0)).collect();
    bars("Hops from the source, % of chunks", &depth, RIVER, &panels[2])?;
    let classes: Vec<(String, f64)> = report
        .classes
        .iter()
        .map(|class| (format!("{} ({:.2}x)", class.name, class.upload), class.copies))
        .collect();
    bars("Copies that a peer sent, by class (uplink / rate)", &classes, REED, &panels[3])?;
    root.present()?;
    Ok(())
}

fn delays<B: DrawingBackend>(report: &Report, area: &Area<'_, B>) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    let [measured, greedy, better] = &report.curves;
    let most = measured.get(99).copied().unwrap_or(0.0).max(greedy.last().copied().unwrap_or(0.0)) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption("Chunk delay, % of chunks there", (FONT, 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..most.max(1.0), 0.0..100.0)?;
    chart.configure_mesh().x_desc("ms").label_style((FONT, 13)).light_line_style(TRANSPARENT).draw()?;
    let lines = [
        ("this swarm", measured, RIVER),
        ("greedy snowball", greedy, BANK),
        ("better reference", better, REED),
    ];
    for (name, curve, color) in lines {
        let points = curve.iter().enumerate().map(|(percent, ms)| (*ms, percent as f64));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font((FONT, 13))
        .background_style(WHITE.mix(0.8))
        .border_style(INK)
        .draw()?;
    Ok(())
}

fn continuity<B: DrawingBackend>(report: &Report, area: &Area<'_, B>) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    let bin_s = BIN_US as f64 / 1e6;
    let points: Vec<(f64, f64)> = report
        .bins
        .iter()
        .enumerate()
        .filter(|(_, bin)| bin.due > 0)
        .map(|(i, bin)| (i as f64 * bin_s, bin.on_time as f64 / bin.due as f64 * 100.0))
        .collect();
    let least = points.iter().map(|(_, percent)| *percent).fold(99.0, f64::min).floor();
    let mut chart = ChartBuilder::on(area)
        .caption("On time at 1.5 s, % of chunks", (FONT, 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..report.duration_ms as f64 / 1000.0, least..100.0 + (100.0 - least) * 0.05)?;
    chart.configure_mesh().x_desc("s").label_style((FONT, 13)).light_line_style(TRANSPARENT).draw()?;
    for event in &report.events {
        let at = event.at_ms / 1000.0;
        chart.draw_series(LineSeries::new([(at, least), (at, 100.0)], BANK.stroke_width(1)))?;
        let style = (FONT, 13).into_font().color(&BANK);
        let low = least + (100.0 - least) * 0.05;
        chart.draw_series([Text::new(event.event.clone(), (at, low), style)])?;
    }
    chart.draw_series(LineSeries::new(points, RIVER.stroke_width(2)))?;
    Ok(())
}

fn bars<B: DrawingBackend>(
    caption: &str,
    values: &[(String, f64)],
    color: RGBColor,
    area: &Area<'_, B>,
) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max).max(0.001) * 1.15;
    let count = values.len().max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..count, 0.0..most)?;
    let label = |x: &f64| values.get(*x as usize).map_or(String::new(), |(name, _)| name.clone());
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .label_style((FONT, 13))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (i, (_, value)) in values.iter().enumerate() {
        let (left, right) = (i as f64 + 0.15, i as f64 + 0.85);
        chart.draw_series([Rectangle::new([(left, 0.0), (right, *value)], color.filled())])?;
        let figure = if *value >= 10.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        let style = (FONT, 12).into_font().color(&INK);
        let text = format!("{}: {figure}", label(&(i as f64)));
        // Few bars have room for their names.
        let text = if count <= 8.0 { text } else { label(&(i as f64)) };
        chart.draw_series([Text::new(text, (left, value + most * 0.04), style)])?;
    }
    Ok(())
}
