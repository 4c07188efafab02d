// Colours of values: scales of three colours of the style sheet, such as --scale-0 to --scale-2.

/** The three colours of a scale at an element, as numbers of red, green and blue. */
export function scaleOf(element, name) {
  const style = getComputedStyle(element);
  return [0, 1, 2].map((number) => {
    const text = style.getPropertyValue(`--${name}-${number}`).trim();
    return [1, 3, 5].map((place) => parseInt(text.slice(place, place + 2), 16));
  });
}

/** Red, green and blue of a share from 0 to 1 on a scale. */
export function mixed(scale, share) {
  const within = Math.min(Math.max(share, 0), 1);
  const [from, to, part] = within < 0.5 ? [scale[0], scale[1], within * 2] : [scale[1], scale[2], within * 2 - 1];
  return from.map((each, place) => Math.round(each + (to[place] - each) * part));
}

/** `mixed` as a colour of a canvas. */
export const rgb = (scale, share) => `rgb(${mixed(scale, share).join()})`;
