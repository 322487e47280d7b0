"use strict";
/* Starts the viewer in a file of its own: its data stands in the document. */

{
  const place = document.getElementById("flame");
  try {
    const viewer = new FlameViewer(place);
    viewer.show(JSON.parse(document.getElementById("flame-data").textContent));
  } catch (error) {
    place.textContent = `The flame graph cannot be shown: ${error.message}`;
    throw error;
  }
}
