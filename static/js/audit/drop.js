/* A place to drop a file: it becomes the value of the form's own input, and the form is sent. */
class DropZone extends HTMLElement {
  connectedCallback() {
    this.input = this.querySelector("input[type=file]");
    this.busy = this.querySelector(".drop-busy");
    this.form = this.closest("form");
    this.depth = 0; // dragenter and dragleave come for every child
    this.addEventListener("dragenter", (event) => this.over(event, 1));
    this.addEventListener("dragover", (event) => event.preventDefault());
    this.addEventListener("dragleave", (event) => this.over(event, -1));
    this.addEventListener("drop", (event) => this.drop(event));
    this.form.addEventListener("submit", () => {
      this.busy.textContent = "Verifying; both verifiers take some seconds.";
    });
  }

  over(event, step) {
    event.preventDefault();
    this.depth += step;
    this.classList.toggle("is-over", this.depth > 0);
  }

  drop(event) {
    event.preventDefault();
    this.depth = 0;
    this.classList.remove("is-over");
    if (!event.dataTransfer.files.length) return;
    this.input.files = event.dataTransfer.files;
    this.form.requestSubmit();
  }
}

customElements.define("drop-zone", DropZone);
