"""The model ``vec(Y) ~ N((A ⊗ X) vec(B), C0 ⊗ GGᵀ + C1 ⊗ I)``: arrays in, arrays out.

The modules in the order of the mathematics:

1. Coordinates. `spectrum` rotates samples, `contrasts` the traits with them, `trait_axes` decouples the traits.
2. Likelihood at given C0 and C1: `likelihood`; its derivatives in `information`; fixed effects in
   `generalised_least_squares`.
3. Fit: a step (`trust_region`), a climb to an optimum with its certificate (`climbing`), the choice among several
   (`fitting`). What it says: `uncertainty` (standard errors), `profile` (intervals).
4. Variants: `block_scanner` (score and information of blocks), `hypotheses` and `tail_probability` (tests),
   `satterthwaite` (tests that know how precisely C0 and C1 are known), `refit` (C0 and C1 free again, on
   `variant_likelihood`) and `bartlett` (the scale of its statistics). `conditioning` (tests given other variants),
   `second_column` (interactions and dominance), `bootstrap` (the largest statistics of simulated traits). New samples:
   `prediction`.
5. Sets of variants, in `sets`: scores (`scanner`), `fixed_effects`, and `random_effects`, the other tests by name, from
   `kernel_tests`, `skato` and `likelihood_ratio`, on the tail probabilities of `quadratic_forms`; `bootstrap` of them.
6. `null_model`: one interface to all of this. `missing` is the same for traits with missing cells, `families` for
   relationship matrices that fall into blocks.

`kron2sum`, `fast_scanner` and `covariance` are the public classes for Python.

==============  ==================================================================  ======================
Symbol          Meaning                                                             Where it lives
==============  ==================================================================  ======================
n, p, c, a      samples, traits, covariates, columns of the trait design
Y (n, p)        traits                                                              `null_model.TraitData`
X (n, c)        covariates                                                          `null_model.TraitData`
A (p, a)        trait design: effects of a covariate on the traits are ABᵀ          `null_model.TraitData`
B (c, a)        fixed effects                                                       `uncertainty.Estimates`
G (n, r)        features whose products GGᵀ are the relationship of samples         argument of `spectrum`
C0, C1 (p, p)   genetic and residual covariance of the traits                       `trait_axes.TraitAxes`
K (np, np)      covariance of vec(Y), C0 ⊗ GGᵀ + C1 ⊗ I; never made
V (n, m)        rotation of the samples, ``VᵀGGᵀV = diag(s)``                       `contrasts.Contrasts`
s (m,)          eigenvalues of GGᵀ given the covariates; τ is their mean            `contrasts.Contrasts`
Z (m, p)        rotated traits VᵀY                                                  `contrasts.Contrasts`
Qx, Rx          ``X = Qx Rx``, an orthonormal basis of the covariates               `spectrum.Spectrum`
T (p, p)        trait axes, ``T C0 Tᵀ = diag(c0²)``, ``T C1 Tᵀ = diag(c1²)``        `trait_axes.TraitAxes`
W (m, p)        inverse variances, ``w_ij = 1 / (s_i c0_j² + c1_j²)``               `likelihood.Point`
α (m, p)        K⁻¹r, r the residual, in rotated rows and trait axes                `likelihood.Point`
E0, E1 (p, p)   small changes of C0 and C1 along the trait axes                     `information`
u (b, p)        scores of b variants along the trait axes                           `block_scanner`
v (b, p)        information of b variants along the trait axes                      `block_scanner`
M               contrasts of samples that would tell as much of C0 and C1           `satterthwaite`
q0              ``rᵀK⁻¹r`` of the null model, from which tests measure              `null_model.FitSummary`
==============  ==================================================================  ======================
"""
