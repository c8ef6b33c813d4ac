// A file may be dropped anywhere on the form. Without this it is chosen, or dropped on the field itself.

"use strict";

const field = document.querySelector(".field.drop");
const form = field.closest("form");
const input = field.querySelector("input[type=file]");

const carries = (event) => event.dataTransfer?.types.includes("Files");

form.addEventListener("dragover", (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  field.classList.add("over");
});
form.addEventListener("dragleave", () => field.classList.remove("over"));
form.addEventListener("drop", (event) => {
  field.classList.remove("over");
  if (!carries(event) || event.target === input) return;
  event.preventDefault();
  input.files = event.dataTransfer.files;
});
