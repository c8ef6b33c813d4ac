// Reading values off a plot, by pointer, touch or keyboard. Without this the plots are all there, and their marks have
// titles.

"use strict";

for (const plot of document.querySelectorAll("figure.plot")) {
  const picture = plot.querySelector("svg");
  const marks = [...plot.querySelectorAll("svg title")].map((title) => {
    const mark = title.parentNode;
    return { mark, place: parseFloat(mark.getAttribute("cx")), text: title.textContent };
  });
  const places = [...new Set(marks.map(({ place }) => place))].sort((one, other) => one - other);
  if (places.length < 2) continue;

  const reading = document.createElement("div");
  reading.className = "reading";
  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = 0;
  slider.max = places.length - 1;
  slider.value = 0;
  slider.setAttribute("aria-label", `Channel of ${plot.querySelector(".label").textContent}`);
  const said = document.createElement("output");
  said.textContent = "Point at a channel, or move the slider";
  reading.append(slider, said);
  plot.append(reading);

  const choose = (index) => {
    const chosen = marks.filter(({ place }) => place === places[index]);
    for (const { mark } of marks) mark.classList.remove("chosen");
    for (const { mark } of chosen) mark.classList.add("chosen");
    const text = chosen.map(({ text }) => text).join("; ");
    slider.value = index;
    slider.setAttribute("aria-valuetext", text);
    said.textContent = text;
  };
  slider.addEventListener("input", () => choose(Number(slider.value)));
  picture.addEventListener("pointermove", (event) => {
    const frame = picture.getBoundingClientRect();
    const at = (100 * (event.clientX - frame.left)) / frame.width;
    const distances = places.map((place) => Math.abs(place - at));
    choose(distances.indexOf(Math.min(...distances)));
  });
}
