// The score, with a name under each term. The names come back above the heat maps.

export function Formula() {
  return (
    <div
      class="formula"
      role="math"
      aria-label="score of i and j = q i times k j over root D, plus lambda times e to the g i minus g j times C i times B j"
    >
      <span class="term">
        score<sub>ij</sub>
      </span>
      <span class="operator">=</span>
      <span class="term named content">
        q<sub>i</sub>·k<sub>j</sub> / √D
        <small>content</small>
      </span>
      <span class="operator">+</span>
      <span class="term named importance">
        λ<sub>h</sub> · e
        <sup>
          g<sub>i</sub>−g<sub>j</sub>
        </sup>{" "}
        · C<sub>i</sub>·B<sub>j</sub>
        <small>importance, forgetting at rate g</small>
      </span>
    </div>
  );
}
